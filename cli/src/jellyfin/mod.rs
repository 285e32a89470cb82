//! `media-assets jellyfin`: carries bytes. It fetches what the database asks of Jellyfin and posts the events that the
//! database queued; what becomes of a row is decided there.
//!
//! Whatever is stored is stored in a short transaction of its own, and HTTP happens outside of it: a kill at any point
//! loses at most the knowledge that something was done, which is then done again.

mod fetch;
mod http;
mod progress;
mod publish;
mod roots;
mod tries;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::failure::{Cause, Failure};

#[derive(Subcommand)]
pub enum Command {
    /// Fetch the Jellyfin items that the database lacks (JELLYFIN_URL, JELLYFIN_API_KEY).
    Fetch(fetch::Arguments),
    /// Post queued events to Agent Zero (AGENT_ZERO_BASE_URL).
    Publish(publish::Arguments),
}

impl Command {
    pub fn run(&self) -> Result<(), Failure> {
        match self {
            Command::Fetch(arguments) => fetch::run(arguments),
            Command::Publish(arguments) => publish::run(arguments),
        }
    }
}

/// What both commands take.
#[derive(Args)]
pub struct Common {
    /// Requests at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    concurrency: u16,
    /// Rest between requests: 2, 2s, 500ms or 1m
    #[arg(long, default_value = "0s", value_parser = duration)]
    sleep: Duration,
    /// How long one request may take
    #[arg(long, default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// How often one thing is tried before this call leaves it
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=20))]
    tries: u32,
    /// Rest before the second try, doubled before each further one; Retry-After wins
    #[arg(long, default_value = "1s", value_parser = duration)]
    backoff: Duration,
    /// PEM file of the authorities to trust over https, in the place of the system's
    #[arg(long, env = "MEDIA_ASSETS_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Show what would be done, send nothing and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// A length of time: a number of seconds, or one with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text} is no length of time; it is 2, 2s, 500ms or 1m");
    let (number, unit) = text.split_at(
        text.find(|letter: char| letter.is_ascii_alphabetic())
            .unwrap_or(text.len()),
    );
    let milliseconds = match unit {
        "ms" => 1.0,
        "" | "s" => 1000.0,
        "m" => 60_000.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let whole = number * milliseconds;
    // A day is longer than anybody waits.
    if !(0.0..=86_400_000.0).contains(&whole) {
        return Err(bad());
    }
    Ok(Duration::from_millis(whole as u64))
}

/// The value of a variable of the environment that has to be there.
fn needed(name: &str, example: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => Ok(value.trim().to_owned()),
        _ => {
            Err(Failure::new(Cause::Validation, format!("{name} is not set")).hint(format!("export {name}={example}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn lengths_of_time() {
        for (text, milliseconds) in [
            ("2", 2000),
            ("2s", 2000),
            ("500ms", 500),
            ("1m", 60_000),
            ("0.5", 500),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1", "2h", "1e9", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
