//! `jellyfin publish`: posts queued events, each at least once and always under its own id.
//!
//! A claim is a short transaction: it takes due events with SKIP LOCKED and puts their next attempt behind the end of its
//! lease. Then comes HTTP, then another short transaction that says what came of it. Who is killed in between leaves
//! events that are due again when the lease is over.

mod outbox;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clap::Args;
use postgres::Client;
use serde_json::Value;

use super::http::{fatal, Server, Trouble};
use super::progress::Progress;
use super::tries::{rest, LONGEST_WAIT};
use super::{needed, Common};
use crate::connection::Target;
use crate::failure::{Cause, Failure};
use outbox::{
    claim, database, event_of, fail, list_failed, name_of_this_call, published, release, unpublished, until_next,
    Event, Recorded,
};

/// So many events without any answer, one after the other, are a server that is not there: the others wait for another
/// call, and lose none of their attempts.
const MOST_SILENT: usize = 10;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Post at most that many events
    #[arg(long)]
    limit: Option<usize>,
    /// How long an event is ours; the next call takes it over after that. Default: twice the timeout and 30s
    #[arg(long, value_parser = super::duration)]
    lease: Option<Duration>,
}

/// A failure of the last try that this call made of an event.
struct Failing {
    text: String,
    /// Nobody was there to hear of it.
    unreachable: bool,
}

#[derive(Default)]
struct Totals {
    published: usize,
    failing: HashMap<String, Failing>,
    tries: HashMap<String, u32>,
    /// Delivered by us and recorded by another call first.
    twice: usize,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::new(
        "AGENT_ZERO_BASE_URL",
        &needed("AGENT_ZERO_BASE_URL", "http://localhost:8080")?,
        None,
        arguments.common.timeout,
        arguments.common.ca_file.as_deref(),
    )?;
    let mut client = Target::of_environment()?.connect()?;
    if arguments.common.dry_run {
        return show(&mut client, &server, arguments);
    }
    let mut relay = Relay::new(&mut client, &server, arguments)?;
    let result = relay.work();
    relay.progress.finish();
    let result = result.and_then(|()| relay.sum_up());
    list_failed(&mut client)?;
    result
}

fn show(client: &mut Client, server: &Server, arguments: &Arguments) -> Result<(), Failure> {
    let mut reading = client.build_transaction().read_only(true).start().map_err(database)?;
    let count: i64 = reading
        .query_one("SELECT count(*) FROM event_outbox WHERE state = 'queued'", &[])
        .map_err(database)?
        .get(0);
    let samples = arguments.limit.unwrap_or(3).min(100) as i64;
    let rows = reading
        .query(
            "SELECT event_id::text, topic, payload::text, attempts FROM event_outbox WHERE state = 'queued'
             ORDER BY next_attempt_at, event_id LIMIT $1",
            &[&samples],
        )
        .map_err(database)?;
    println!("dry run: {count} events are queued; {} of them in full:", rows.len());
    for row in rows {
        let event = event_of(&row)?;
        println!("POST {}/events/publish", server.base());
        println!("{:#}", event.body());
    }
    Ok(())
}

/// One call's work.
struct Relay<'r> {
    client: &'r mut Client,
    server: &'r Server,
    arguments: &'r Arguments,
    us: String,
    lease: Duration,
    progress: Progress,
    totals: Totals,
    /// Events that this call began with.
    taken: usize,
    /// Events without any answer since the last answer.
    silent: HashSet<String>,
}

impl<'r> Relay<'r> {
    fn new(client: &'r mut Client, server: &'r Server, arguments: &'r Arguments) -> Result<Self, Failure> {
        let common = &arguments.common;
        let lease = arguments.lease.unwrap_or(common.timeout * 2 + Duration::from_secs(30));
        if lease <= common.timeout {
            return Err(Failure::new(Cause::Validation, "the lease ends before a request may")
                .hint("--lease has to be longer than --timeout."));
        }
        let queued: i64 = client
            .query_one("SELECT count(*) FROM event_outbox WHERE state = 'queued'", &[])
            .map_err(database)?
            .get(0);
        let queued = usize::try_from(queued).unwrap_or_default();
        let total = arguments.limit.map_or(queued, |limit| limit.min(queued));
        Ok(Relay {
            client,
            server,
            arguments,
            us: name_of_this_call(),
            lease,
            progress: Progress::start(total as u64),
            totals: Totals::default(),
            taken: 0,
            silent: HashSet::new(),
        })
    }

    /// Posts until nothing is due that this call may post.
    fn work(&mut self) -> Result<(), Failure> {
        let common = &self.arguments.common;
        loop {
            let left = self
                .arguments
                .limit
                .map_or(usize::MAX, |limit| limit.saturating_sub(self.taken));
            let at_once = usize::from(common.concurrency);
            // Those that this call tried often enough are left to a later one, those that it began with are seen through.
            let spent = of_tries(&self.totals, |tries| tries >= common.tries);
            let open = of_tries(&self.totals, |tries| tries < common.tries);
            if left == 0 && open.is_empty() {
                return Ok(());
            }
            let most = at_once.min(left);
            let events = claim(self.client, &self.us, self.lease, most, at_once, &spent, &open)?;
            if events.is_empty() {
                match until_next(self.client, &open)?.filter(|wait| *wait <= LONGEST_WAIT) {
                    Some(wait) => std::thread::sleep(wait),
                    None => return Ok(()),
                }
                continue;
            }
            let begun = |event: &&Event| !self.totals.tries.contains_key(&event.id);
            self.taken += events.iter().filter(begun).count();
            let results = post(self.server, &events);
            let mut pause = common.sleep;
            let mut stop = None;
            for (event, result) in events.iter().zip(results) {
                if let Err(trouble) = self.settle(event, result)? {
                    if self.is_over(&trouble) {
                        stop = Some(trouble);
                    } else if let Some(asked) = trouble.retry_after() {
                        // A server that says when to come again says it for all.
                        pause = pause.max(asked);
                    }
                }
            }
            if let Some(trouble) = stop {
                return Err(fatal(self.server, &trouble, "AGENT_ZERO_BASE_URL"));
            }
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }

    /// Records what came of one post; gives the trouble that there was.
    fn settle(&mut self, event: &Event, result: Result<String, Trouble>) -> Result<Result<(), Trouble>, Failure> {
        let tries = self.totals.tries.entry(event.id.clone()).or_default();
        *tries += 1;
        let trouble = match result {
            Ok(envelope) => {
                self.silent.clear();
                self.totals.tries.remove(&event.id);
                self.totals.failing.remove(&event.id);
                match published(self.client, event, &envelope)? {
                    Recorded::ByUs => self.totals.published += 1,
                    Recorded::Before => self.totals.twice += 1,
                    Recorded::Nowhere => self.failing(event, "delivered, but its row in event_outbox has gone", false),
                }
                let line = format!("published {} as {envelope}", event.id);
                self.progress.batch(1, &line);
                return Ok(Ok(()));
            }
            Err(trouble) => trouble,
        };
        if is_not_about_events(&trouble) {
            release(self.client, event, &self.us)?;
            return Ok(Err(trouble));
        }
        let unreachable = matches!(trouble, Trouble::Unreachable { .. });
        if unreachable || matches!(trouble, Trouble::Passing { status: None, .. }) {
            self.silent.insert(event.id.clone());
        } else {
            self.silent.clear();
        }
        let common = &self.arguments.common;
        let tried = u32::try_from(event.attempts).unwrap_or_default() + 1;
        let wait = rest(&trouble, common.backoff, tried);
        let state = fail(self.client, event, &self.us, &trouble.text(), wait)?;
        if matches!(trouble, Trouble::Lasting { .. }) || state.as_deref() == Some("failed") {
            *tries = u32::MAX;
        }
        self.failing(event, &trouble.text(), unreachable);
        Ok(Err(trouble))
    }

    fn failing(&mut self, event: &Event, text: &str, unreachable: bool) {
        self.progress.say(&format!("{}: {text}", event.id));
        let text = text.to_owned();
        let failing = Failing { text, unreachable };
        self.totals.failing.insert(event.id.clone(), failing);
    }

    /// Whether no other event can go well in this call either.
    fn is_over(&self, trouble: &Trouble) -> bool {
        is_not_about_events(trouble)
            || trouble.retry_after().is_some_and(|asked| asked > LONGEST_WAIT)
            || self.silent.len() >= MOST_SILENT
    }

    /// Says what the call came to.
    ///
    /// # Errors
    /// When events that it tried are still not published.
    fn sum_up(&mut self) -> Result<(), Failure> {
        let ids: Vec<&str> = self.totals.failing.keys().map(String::as_str).collect();
        // Another call may have had more luck with them.
        let left = unpublished(self.client, &ids)?;
        let Totals {
            published,
            twice,
            failing,
            ..
        } = &self.totals;
        let twice = if *twice > 0 {
            format!(", {twice} that another call recorded first")
        } else {
            String::new()
        };
        println!("published: {published}{twice}; failing: {}", left.len());
        let Some(first) = left.first().and_then(|id| failing.get(id)) else {
            return Ok(());
        };
        // Where nobody ever was there, that is all there is to say.
        let cause = if *published == 0 && failing.values().all(|failing| failing.unreachable) {
            Cause::SourceUnreachable
        } else {
            Cause::Incomplete
        };
        let message = format!("{} events were not published; one of them: {}", left.len(), first.text);
        Err(Failure::new(cause, message).hint(
            "SELECT event_id, attempts, next_attempt_at, last_error, state FROM event_outbox WHERE last_error IS NOT NULL; then call again.",
        ))
    }
}

/// Trouble in which an event had no part: it is given back as it was.
fn is_not_about_events(trouble: &Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Refused(_) | Trouble::Unreachable { untrusted: true, .. }
    )
}

fn of_tries(totals: &Totals, which: impl Fn(u32) -> bool) -> Vec<&str> {
    let tries = totals.tries.iter().filter(|(_, tries)| which(**tries));
    tries.map(|(id, _)| id.as_str()).collect()
}

/// Posts all of them at the same time; gives the ids of their envelopes.
fn post(server: &Server, events: &[Event]) -> Vec<Result<String, Trouble>> {
    let one = |event: &Event| match server.post("/events/publish", &event.body())?.get("id") {
        Some(Value::String(id)) if !id.is_empty() => Ok(id.replace('\0', "")),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(Trouble::unusable("the answer has no id of an envelope")),
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = events.iter().map(|event| scope.spawn(move || one(event))).collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Trouble::unusable("the request broke down")))
            })
            .collect()
    })
}
