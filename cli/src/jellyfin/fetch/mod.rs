//! `jellyfin fetch`: asks Jellyfin what the database has to know, and stores each answer, a 404 too.

mod ask;
mod store;

use std::collections::{HashSet, VecDeque};
use std::sync::{mpsc, Mutex};

use clap::Args;
use postgres::Client;

use super::http::{fatal, Server, Trouble};
use super::progress::Progress;
use super::tries::Tries;
use super::{needed, Common};
use crate::connection::Target;
use crate::failure::{Cause, Failure};
use ask::{Asker, Request};
use store::store;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Ask at most that many questions (an item or a search is one)
    #[arg(long)]
    limit: Option<usize>,
    /// Items asked for in one request
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    batch: u16,
}

#[derive(Default)]
struct Totals {
    found: usize,
    not_found: usize,
    gone: usize,
    failed: usize,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::new(
        "JELLYFIN_URL",
        &needed("JELLYFIN_URL", "http://jellyfin:8096")?,
        Some(needed("JELLYFIN_API_KEY", "…")?),
        arguments.common.timeout,
        arguments.common.ca_file.as_deref(),
    )?;
    let mut client = Target::of_environment()?.connect()?;
    let mut asked = HashSet::new();
    if arguments.common.dry_run {
        let requests = questions(&mut client, arguments, &mut asked)?;
        return show(&server, &requests);
    }
    let progress = Progress::start(0);
    let mut totals = Totals::default();
    // An item that has gone may leave a search to make: another round, until nothing new comes up.
    loop {
        let requests = questions(&mut client, arguments, &mut asked)?;
        if requests.is_empty() {
            break;
        }
        progress.add(requests.iter().map(Request::questions).sum::<usize>() as u64);
        let trouble = round(&mut client, &server, arguments, requests, &progress, &mut totals)?;
        if let Some(trouble) = trouble {
            progress.finish();
            return Err(fatal(&server, &trouble, "JELLYFIN_URL and JELLYFIN_API_KEY"));
        }
    }
    progress.finish();
    println!(
        "fetched: {} answered, {} not found, {} failed",
        totals.found, totals.not_found, totals.failed
    );
    // It is an answer, and also what the wrong path of a server says to everything.
    if totals.gone > 0 && totals.gone == totals.not_found && totals.found == 0 {
        eprintln!(
            "HINT: {} answers with HTTP 404 only. If JELLYFIN_URL is not its address: SELECT reopen_jellyfin_skips(); DELETE FROM jellyfin_items WHERE http_status IN (404, 410); then call again.",
            server.base()
        );
    }
    if totals.failed > 0 {
        return Err(
            Failure::new(Cause::Incomplete, format!("{} questions have no answer", totals.failed)).hint(
                "SELECT item_id, http_status, error FROM jellyfin_items WHERE error IS NOT NULL; then call again.",
            ),
        );
    }
    Ok(())
}

/// What the database wants to know and was not asked for yet by this call. What failed before comes last, the oldest
/// failure first, and in requests of its own: whatever `--limit` is, it keeps nothing from the rest.
fn questions(client: &mut Client, arguments: &Arguments, asked: &mut HashSet<String>) -> Result<Vec<Request>, Failure> {
    let rows = client
        .query(
            "SELECT q.question, q.key, q.search_name, q.search_date, i.error IS NOT NULL AS failed
             FROM (SELECT DISTINCT ON (key) * FROM (
                       SELECT question, CASE question WHEN 'item' THEN item_id ELSE search_key END AS key, search_name, search_date::text, row_id
                       FROM jellyfin_candidates() WHERE question IS NOT NULL) c
                   ORDER BY key, row_id) q
             LEFT JOIN jellyfin_items i ON i.item_id = q.key
             ORDER BY failed, CASE WHEN i.error IS NOT NULL THEN i.fetched_at END, q.key",
            &[],
        )
        .map_err(|error| Failure::of_database(&error, None))?;
    let left = arguments
        .limit
        .map_or(usize::MAX, |limit| limit.saturating_sub(asked.len()));
    // Those never asked for, and those that failed.
    let mut ids: [Vec<String>; 2] = Default::default();
    let mut others: [Vec<Request>; 2] = Default::default();
    let mut taken = 0;
    for row in rows {
        let key: String = row.get(1);
        if taken >= left || asked.contains(&key) {
            continue;
        }
        asked.insert(key.clone());
        taken += 1;
        let group = usize::from(row.get::<_, bool>(4));
        match (row.get::<_, &str>(0), row.get(2), row.get(3)) {
            // A comma separates ids, and no id of Jellyfin has one: such an item cannot be asked for with others.
            ("item", ..) if key.contains(',') => others[group].push(Request::Items(vec![key])),
            ("item", ..) => ids[group].push(key),
            (_, Some(name), Some(date)) => others[group].push(Request::Search { key, name, date }),
            _ => {}
        }
    }
    let groups = ids.into_iter().zip(others).flat_map(|(ids, others)| {
        let batches = ids
            .chunks(arguments.batch.into())
            .map(|ids| Request::Items(ids.to_vec()));
        batches.chain(others).collect::<Vec<_>>()
    });
    Ok(groups.collect())
}

fn show(server: &Server, requests: &[Request]) -> Result<(), Failure> {
    let of_items: usize = requests
        .iter()
        .filter(|r| matches!(r, Request::Items(_)))
        .map(Request::questions)
        .sum();
    let searches = requests.iter().filter(|r| matches!(r, Request::Search { .. })).count();
    println!(
        "dry run: {of_items} items and {searches} searches to ask for, {} requests",
        requests.len()
    );
    for request in requests.iter().take(5) {
        let (path, query) = request.path_and_query();
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        println!("GET {}{path}?{}", server.base(), query.join("&"));
    }
    Ok(())
}

/// Makes the requests, at most `--concurrency` at a time, and stores each answer as it comes. Gives what stopped it.
fn round(
    client: &mut Client,
    server: &Server,
    arguments: &Arguments,
    requests: Vec<Request>,
    progress: &Progress,
    totals: &mut Totals,
) -> Result<Option<Trouble>, Failure> {
    let waiting = Mutex::new(VecDeque::from(requests));
    let tries = Tries::default();
    let common = &arguments.common;
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..common.concurrency {
            let (send, waiting, tries) = (send.clone(), &waiting, &tries);
            let asker = Asker {
                server,
                tries,
                most_tries: common.tries,
                backoff: common.backoff,
            };
            scope.spawn(move || loop {
                let next = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front());
                let Some(request) = next.filter(|_| !tries.is_stopped()) else {
                    return;
                };
                let outcome = asker.ask(&request);
                if outcome.stop.is_some() {
                    tries.stop();
                }
                if send.send((request.questions(), outcome)).is_err() {
                    return;
                }
                if waiting.lock().is_ok_and(|waiting| !waiting.is_empty()) {
                    tries.sleep(common.sleep);
                }
            });
        }
        drop(send);
        let mut trouble = None;
        for (asked, outcome) in &receive {
            let refused = store(client, &outcome.answers).inspect_err(|_| tries.stop())?;
            totals.failed += refused.len();
            refused.iter().for_each(|refused| progress.say(refused));
            totals.found += outcome.found;
            totals.not_found += outcome.not_found;
            totals.gone += outcome.gone;
            totals.failed += outcome.failed;
            for answer in &outcome.answers {
                if let Some(error) = &answer.error {
                    progress.say(&format!("{}: {error}", answer.item_id));
                }
            }
            progress.batch(
                asked as u64,
                &format!(
                    "asked {asked}, not found {}, failed {}",
                    outcome.not_found, outcome.failed
                ),
            );
            trouble = trouble.or(outcome.stop.filter(|stop| *stop != Trouble::Stopped));
        }
        Ok(trouble)
    })
}
