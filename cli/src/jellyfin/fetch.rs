//! `jellyfin fetch`: asks Jellyfin what the database has to know, and stores each answer, a 404 too.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Mutex};

use clap::Args;
use postgres::Client;
use serde_json::Value;

use super::http::{fatal, with_tries, Server, Trouble};
use super::progress::Progress;
use super::{needed, Common};
use crate::connection::Target;
use crate::failure::{Cause, Failure};

/// Hits of a search are asked for in pages of so many.
const PAGE: usize = 100;
/// No name and date has more pages of hits than that.
const MOST_PAGES: usize = 50;

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

/// One request to make.
#[derive(Clone, Debug)]
enum Request {
    Items(Vec<String>),
    Search { key: String, name: String, date: String },
}

/// A row for `jellyfin_items`.
struct Answer {
    item_id: String,
    doc: Option<Value>,
    status: u16,
    error: Option<String>,
}

/// What came of a request.
struct Outcome {
    /// Questions that it was about.
    asked: usize,
    answers: Vec<Answer>,
    failed: usize,
    stop: Option<Trouble>,
}

#[derive(Default)]
struct Totals {
    found: usize,
    not_found: usize,
    failed: usize,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::new(
        "JELLYFIN_URL",
        &needed("JELLYFIN_URL", "http://jellyfin:8096")?,
        Some(needed("JELLYFIN_API_KEY", "…")?),
        arguments.common.timeout,
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
    if totals.failed > 0 {
        return Err(
            Failure::new(Cause::Incomplete, format!("{} questions have no answer", totals.failed)).hint(
                "SELECT item_id, http_status, error FROM jellyfin_items WHERE error IS NOT NULL; then call again.",
            ),
        );
    }
    Ok(())
}

impl Request {
    fn questions(&self) -> usize {
        match self {
            Request::Items(ids) => ids.len(),
            Request::Search { .. } => 1,
        }
    }

    fn path_and_query(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let mut query = match self {
            Request::Items(ids) => vec![("ids", ids.join(","))],
            Request::Search { name, date, .. } => vec![
                ("searchTerm", name.clone()),
                ("recursive", "true".to_owned()),
                // The UTC day; what fits in the end is the database's to say.
                ("minPremiereDate", format!("{date}T00:00:00.000Z")),
                ("maxPremiereDate", format!("{date}T23:59:59.999Z")),
            ],
        };
        // What somebody watched is nobody's business.
        query.push(("enableUserData", "false".to_owned()));
        ("/Items", query)
    }
}

/// What the database wants to know and was not asked for yet by this call.
fn questions(client: &mut Client, arguments: &Arguments, asked: &mut HashSet<String>) -> Result<Vec<Request>, Failure> {
    let rows = client
        .query(
            "SELECT DISTINCT ON (key) * FROM (
                 SELECT question, CASE question WHEN 'item' THEN item_id ELSE search_key END AS key, search_name, search_date::text, row_id
                 FROM jellyfin_candidates() WHERE question IS NOT NULL) q
             ORDER BY key, row_id",
            &[],
        )
        .map_err(|error| Failure::of_database(&error, None))?;
    let left = arguments
        .limit
        .map_or(usize::MAX, |limit| limit.saturating_sub(asked.len()));
    let mut ids: Vec<String> = Vec::new();
    let mut requests = Vec::new();
    for row in rows {
        let key: String = row.get(1);
        if ids.len() + requests.len() >= left || asked.contains(&key) {
            continue;
        }
        asked.insert(key.clone());
        match (row.get::<_, &str>(0), row.get(2), row.get(3)) {
            // A comma separates ids, and no id of Jellyfin has one: such an item cannot be asked for with others.
            ("item", ..) if key.contains(',') => requests.push(Request::Items(vec![key])),
            ("item", ..) => ids.push(key),
            (_, Some(name), Some(date)) => requests.push(Request::Search { key, name, date }),
            _ => {}
        }
    }
    let batches = ids
        .chunks(arguments.batch.into())
        .map(|ids| Request::Items(ids.to_vec()));
    Ok(batches.chain(requests).collect())
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
    let stopped = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..arguments.common.concurrency {
            let (send, waiting, stopped) = (send.clone(), &waiting, &stopped);
            scope.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let next = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front());
                    let Some(request) = next else { return };
                    let outcome = ask(server, arguments, request);
                    if outcome.stop.is_some() {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    if send.send(outcome).is_err() {
                        return;
                    }
                    std::thread::sleep(arguments.common.sleep);
                }
            });
        }
        drop(send);
        let mut trouble = None;
        for outcome in &receive {
            let result = store(client, &outcome.answers);
            if let Err(failure) = result {
                stopped.store(true, Ordering::Relaxed);
                return Err(failure);
            }
            let not_found = outcome.answers.iter().filter(|answer| answer.status == 404).count();
            totals.not_found += not_found;
            totals.failed += outcome.failed;
            let found = outcome.asked.saturating_sub(not_found + outcome.failed);
            if outcome.stop.is_none() {
                totals.found += found;
            }
            for answer in outcome.answers.iter().filter(|answer| answer.status != 404) {
                if let Some(error) = &answer.error {
                    progress.say(&format!("{}: {error}", answer.item_id));
                }
            }
            progress.batch(
                outcome.asked as u64,
                &format!(
                    "asked {}, not found {not_found}, failed {}",
                    outcome.asked, outcome.failed
                ),
            );
            trouble = trouble.or(outcome.stop);
        }
        Ok(trouble)
    })
}

/// One request and its answers. When a server fails over several items, each half is asked for by itself, so that one bad
/// item costs itself only.
fn ask(server: &Server, arguments: &Arguments, request: Request) -> Outcome {
    let asked = request.questions();
    let mut outcome = Outcome {
        asked,
        answers: Vec::new(),
        failed: 0,
        stop: None,
    };
    match request {
        Request::Items(ids) => ask_items(server, arguments, &ids, &mut outcome),
        Request::Search { ref key, .. } => match search(server, arguments, &request) {
            Ok(hits) => {
                let status = if hits.is_empty() { 404 } else { 200 };
                outcome.answers.extend(hits);
                outcome.answers.push(Answer {
                    item_id: key.clone(),
                    doc: None,
                    status,
                    error: None,
                });
            }
            Err(trouble) => failed(key, trouble, &mut outcome),
        },
    }
    outcome
}

/// Stores a question without an answer, or stops where no answer is to be had.
fn failed(item_id: &str, trouble: Trouble, outcome: &mut Outcome) {
    let status = match &trouble {
        Trouble::Refused(_) | Trouble::Passing { status: None, .. } => {
            outcome.stop = Some(trouble);
            return;
        }
        Trouble::Lasting {
            status: status @ (404 | 410),
            ..
        } => *status,
        // An answer that cannot be read is none, whatever its status says.
        Trouble::Passing {
            status: Some(200..=299),
            ..
        } => 502,
        Trouble::Passing {
            status: Some(status), ..
        }
        | Trouble::Lasting { status, .. } => *status,
    };
    if !matches!(status, 404 | 410) {
        outcome.failed += 1;
    }
    outcome.answers.push(Answer {
        item_id: item_id.to_owned(),
        doc: None,
        status,
        error: Some(trouble.text()),
    });
}

fn ask_items(server: &Server, arguments: &Arguments, ids: &[String], outcome: &mut Outcome) {
    let (path, query) = Request::Items(ids.to_vec()).path_and_query();
    let common = &arguments.common;
    let answered = with_tries(common.tries, common.backoff, || items_of(server.get(path, &query)?));
    match answered {
        Ok(items) => outcome.answers.extend(ids.iter().map(|id| {
            let doc = items.iter().find(|item| same_id(item, id)).cloned();
            Answer {
                item_id: id.clone(),
                status: if doc.is_some() { 200 } else { 404 },
                error: None,
                doc,
            }
        })),
        Err(trouble) => match (ids, &trouble) {
            (_, Trouble::Refused(_) | Trouble::Passing { status: None, .. }) => outcome.stop = Some(trouble),
            ([id], _) => failed(id, trouble, outcome),
            _ => {
                let (left, right) = ids.split_at(ids.len() / 2);
                for half in [left, right] {
                    if outcome.stop.is_none() {
                        ask_items(server, arguments, half, outcome);
                    }
                }
            }
        },
    }
}

/// The items of an answer: `{"Items": […]}`.
fn items_of(answer: Value) -> Result<Vec<Value>, Trouble> {
    match answer {
        Value::Object(mut members) => match members.remove("Items") {
            Some(Value::Array(items)) => Ok(items.into_iter().filter(Value::is_object).collect()),
            _ => Err(Trouble::unusable("the answer has no list of Items")),
        },
        _ => Err(Trouble::unusable("the answer is no JSON object")),
    }
}

/// Whether an item has this id: Jellyfin takes one with or without dashes, in either case, and answers in its own way.
fn same_id(item: &Value, id: &str) -> bool {
    let plain = |id: &str| id.replace('-', "").to_ascii_lowercase();
    item["Id"].as_str().is_some_and(|own| plain(own) == plain(id))
}

/// All items that a search finds, each under its own id.
fn search(server: &Server, arguments: &Arguments, request: &Request) -> Result<Vec<Answer>, Trouble> {
    let (path, query) = request.path_and_query();
    let common = &arguments.common;
    let mut hits: Vec<Answer> = Vec::new();
    for page in 0..MOST_PAGES {
        let mut query = query.clone();
        query.push(("startIndex", (page * PAGE).to_string()));
        query.push(("limit", PAGE.to_string()));
        let items = with_tries(common.tries, common.backoff, || items_of(server.get(path, &query)?))?;
        let is_last = items.len() < PAGE;
        hits.extend(items.into_iter().filter_map(|item| {
            Some(Answer {
                item_id: item["Id"].as_str()?.to_owned(),
                doc: Some(item),
                status: 200,
                error: None,
            })
        }));
        if is_last {
            return Ok(hits);
        }
    }
    Err(Trouble::unusable(format!(
        "a search finds more than {} items",
        MOST_PAGES * PAGE
    )))
}

/// Stores answers in one statement, in the order of their ids, so that two calls at once do not deadlock. A failure never
/// takes the place of an answer that another call got meanwhile.
fn store(client: &mut Client, answers: &[Answer]) -> Result<(), Failure> {
    let mut sorted: Vec<&Answer> = answers.iter().collect();
    sorted.sort_by(|left, right| left.item_id.cmp(&right.item_id));
    sorted.dedup_by(|left, right| left.item_id == right.item_id);
    if sorted.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = sorted.iter().map(|answer| answer.item_id.as_str()).collect();
    let docs: Vec<Option<String>> = sorted
        .iter()
        .map(|answer| answer.doc.clone().map(|doc| without_nul(doc).to_string()))
        .collect();
    let statuses: Vec<Option<i32>> = sorted
        .iter()
        .map(|answer| Some(i32::from(answer.status)).filter(|status| (100..=599).contains(status)))
        .collect();
    let errors: Vec<Option<String>> = sorted
        .iter()
        .map(|answer| answer.error.as_ref().map(|error| error.replace('\0', "")))
        .collect();
    client
        .execute(
            "INSERT INTO jellyfin_items AS i (item_id, doc, http_status, fetched_at, error)
             SELECT u.item_id, u.doc::jsonb, u.http_status, clock_timestamp(), u.error
             FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[]) u(item_id, doc, http_status, error)
             ON CONFLICT (item_id) DO UPDATE
             SET doc = excluded.doc, http_status = excluded.http_status, fetched_at = excluded.fetched_at, error = excluded.error
             WHERE excluded.error IS NULL OR i.http_status IS NULL OR i.http_status NOT BETWEEN 200 AND 299",
            &[&ids, &docs, &statuses, &errors],
        )
        .map(drop)
        .map_err(|error| Failure::of_database(&error, None))
}

/// A jsonb cannot hold U+0000.
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "")),
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_nul).collect()),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| (name.replace('\0', ""), without_nul(value)))
                .collect(),
        ),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_the_same_in_every_form() {
        let item = json!({"Id": "0123ABCD00000000000000000000EF00"});
        assert!(same_id(&item, "0123abcd-0000-0000-0000-00000000ef00"));
        assert!(!same_id(&item, "0123abcd"));
        assert!(!same_id(&json!({"Id": 5}), "5"));
    }

    #[test]
    fn answers_of_another_shape_are_no_answers() {
        for odd in [
            json!(null),
            json!([]),
            json!({}),
            json!({"Items": {}}),
            json!({"items": []}),
        ] {
            assert!(matches!(items_of(odd), Err(Trouble::Passing { .. })));
        }
        assert_eq!(
            items_of(json!({"Items": [5, {"Id": "a"}, null]})).map(|items| items.len()),
            Ok(1)
        );
    }

    #[test]
    fn no_nul_reaches_the_database() {
        assert_eq!(
            without_nul(json!({"a\0": ["x\0y", {"b": 1}]})),
            json!({"a": ["xy", {"b": 1}]})
        );
    }
}
