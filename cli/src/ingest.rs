//! `media-assets ingest`: scans a directory here, sends the items with COPY, and shows what the database makes of them.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use media_assets_scanner::{scan, Found, Item, Options, Problem};
use postgres::{Client, Transaction};
use serde_json::{json, Value};

use crate::connection::Target;
use crate::failure::{Cause, Failure};

/// The SQLSTATE by which `ingest_collection` says that the scope has no item.
const SCOPE_NOT_FOUND: &str = "P0002";
/// Problems of the scan that are named; the others are counted by the database all the same.
const MOST_PROBLEMS: usize = 100;

/// Scan a directory and ingest its media files into a collection.
#[derive(Args, Debug)]
pub struct Arguments {
    /// UUID, external id or name of the collection
    collection: String,
    /// The directory to scan, on this machine
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    /// Ingest this title only
    #[arg(long)]
    title: Option<String>,
    /// Ingest this season of the title only
    #[arg(long, allow_negative_numbers = true)]
    season: Option<i32>,
    /// Ingest this episode of the season only
    #[arg(long, allow_negative_numbers = true)]
    episode: Option<i32>,
    /// Show what would be done, and write nothing; wins over --test-db
    #[arg(long)]
    dry_run: bool,
    /// Use the database of TEST_DATABASE_URL
    #[arg(long)]
    test_db: bool,
    /// Read every file and compare contents by SHA-256
    #[arg(long)]
    hash: bool,
    /// Follow symbolic links
    #[arg(long)]
    follow_symlinks: bool,
    /// Look for files with this extension only; may be repeated
    #[arg(long = "extension", value_name = "EXT")]
    extensions: Vec<String>,
    /// Print one JSON document, also for errors
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    pub fn run(&self) -> Result<(), Failure> {
        let target = if self.test_db && !self.dry_run {
            Target::of_variable("TEST_DATABASE_URL")?
        } else {
            Target::of_environment()?
        };
        let mut client = target.connect()?;
        let outcome = self.ingest(&mut client);
        // What the server said on the way is worth knowing also when it failed.
        let (mut result, problems) = outcome?;
        let mut out = std::io::stdout().lock();
        // A closed pipe is the reader's wish.
        let _ = if self.json {
            result["problems"] = problems
                .iter()
                .map(|problem| json!({"path": problem.path, "problem": problem.what}))
                .collect();
            writeln!(out, "{result}")
        } else {
            write!(out, "{}", in_words(&result))
        };
        Ok(())
    }

    fn ingest(&self, client: &mut Client) -> Result<(Value, Vec<Problem>), Failure> {
        let refused = |error: postgres::Error| Failure::of_database(&error, Some(SCOPE_NOT_FOUND));
        let schema = schema_of_extension(client)?;
        // Temporary, and gone with the transaction: nothing is left behind by a run that fails.
        let mut transaction = client
            .build_transaction()
            .isolation_level(postgres::IsolationLevel::ReadCommitted)
            .read_only(false)
            .start()
            .map_err(refused)?;
        transaction
            .batch_execute(
                "CREATE TEMPORARY TABLE media_assets_scanned (locator text, size bigint, microseconds bigint, content_hash text, title text,
                     season integer, episode integer, metadata jsonb) ON COMMIT DROP;
                 CREATE TEMPORARY VIEW media_assets_items AS
                     SELECT locator, locator AS uri, size, timestamptz 'epoch' + microseconds * interval '1 microsecond' AS mtime, content_hash,
                            title, season, episode, metadata FROM pg_temp.media_assets_scanned;
                 SET LOCAL media_assets.progress = off",
            )
            .map_err(refused)?;
        self.check(&mut transaction, &schema).map_err(refused)?;
        let mut copy = transaction
            .copy_in("COPY pg_temp.media_assets_scanned FROM STDIN")
            .map_err(refused)?;
        let problems = self.send(&mut copy)?;
        copy.finish().map_err(refused)?;
        let execute = !self.dry_run;
        let sql = format!(
            "SELECT (jsonb_build_object('status', r.status, 'dry_run', NOT $5, 'scope', r.scope, 'collection_id', r.collection_uuid,
                        'collection_name', r.collection_name, 'title', r.title, 'season', r.season, 'episode', r.episode,
                        'stats', to_jsonb(r) - ARRAY['status', 'scope', 'collection_uuid', 'collection_name', 'title', 'season', 'episode',
                                                     'last_ingest_time', 'run_id'],
                        'asset_ids', coalesce({schema}.ingest_result(r.run_id) -> 'asset_ids', '{{\"created\": [], \"updated\": []}}'),
                        'last_ingest_time', r.last_ingest_time, 'run_id', r.run_id))::text
             FROM {schema}.ingest_collection($1, 'pg_temp.media_assets_items', execute => $5, title => $2, season => $3, episode => $4) r"
        );
        // No run has the id NULL, and a dry run has no other.
        let sql = if execute {
            sql
        } else {
            sql.replace(
                &format!("{schema}.ingest_result(r.run_id) -> 'asset_ids'"),
                "NULL::jsonb",
            )
        };
        let row = transaction
            .query_one(
                &sql,
                &[&self.collection, &self.title, &self.season, &self.episode, &execute],
            )
            .map_err(refused)?;
        let text: String = row.get(0);
        if execute {
            transaction.commit().map_err(refused)?;
        } else {
            transaction.rollback().map_err(refused)?;
        }
        let result = serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                Cause::SourceUnreachable,
                format!("the server's answer is no JSON: {error}"),
            )
        })?;
        Ok((result, problems))
    }

    /// Lets the database say what it has against the call, before a long scan: by an item that is in any scope.
    fn check(&self, transaction: &mut Transaction<'_>, schema: &str) -> Result<(), postgres::Error> {
        transaction.execute(
            "INSERT INTO pg_temp.media_assets_scanned (locator, title, season, episode) VALUES ('1', $1, $2, $3)",
            &[&self.title, &self.season, &self.episode],
        )?;
        transaction.query_one(
            &format!(
                "SELECT count(*) FROM {schema}.explain_ingest_collection($1, 'pg_temp.media_assets_items', title => $2, season => $3, episode => $4)"
            ),
            &[&self.collection, &self.title, &self.season, &self.episode],
        )?;
        transaction.batch_execute("DELETE FROM pg_temp.media_assets_scanned")
    }

    /// Sends what the scan finds, one file at a time.
    fn send(&self, copy: &mut impl Write) -> Result<Vec<Problem>, Failure> {
        let root = std::path::absolute(&self.path).map_err(|error| self.unreachable(&error))?;
        let mut options = Options {
            hash: self.hash,
            follow_symlinks: self.follow_symlinks,
            ..Options::default()
        };
        if !self.extensions.is_empty() {
            options.extensions.clone_from(&self.extensions);
        }
        let progress = self.progress();
        let tick = || progress.tick();
        let files = scan(&root, &options, &tick).map_err(|error| self.unreachable(&error))?;
        let mut problems = Vec::new();
        for found in files {
            let line = match found {
                Found::Item(item) => line_of_item(&item),
                Found::Problem(problem) => {
                    let line = line_of_problem(&problem);
                    if !self.json {
                        progress.suspend(|| eprintln!("media-assets: {}: {}", problem.path, problem.what));
                    }
                    if problems.len() < MOST_PROBLEMS {
                        problems.push(problem);
                    }
                    line
                }
            };
            copy.write_all(line.as_bytes())
                .map_err(|error| Failure::new(Cause::SourceUnreachable, format!("the connection was lost: {error}")))?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(problems)
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        Failure::new(
            Cause::SourceUnreachable,
            format!("cannot read directory {}: {error}", self.path.display()),
        )
    }

    /// On a terminal only, and never beside JSON.
    fn progress(&self) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} files sent, {per_sec}, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// Where the functions are, quoted.
fn schema_of_extension(client: &mut Client) -> Result<String, Failure> {
    let row = client
        .query_opt(
            "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'media_assets'",
            &[],
        )
        .map_err(|error| Failure::of_database(&error, None))?;
    row.map(|row| row.get(0)).ok_or_else(|| {
        Failure::new(
            Cause::Validation,
            "extension media_assets is not installed in this database",
        )
        .hint("CREATE EXTENSION media_assets;")
    })
}

fn line_of_item(item: &Item) -> String {
    let text = |text: &Option<String>| text.as_deref().map(escaped);
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    line([
        Some(escaped(&item.path)),
        number(Some(item.size)),
        number(item.mtime),
        text(&item.hash),
        text(&item.title),
        number(item.season.map(i64::from)),
        number(item.episode.map(i64::from)),
        None,
    ])
}

/// An item without a locator: the database counts it, and knows that the list is not complete.
fn line_of_problem(problem: &Problem) -> String {
    let metadata = json!({"path": problem.path, "problem": problem.what}).to_string();
    line([None, None, None, None, None, None, None, Some(escaped(&metadata))])
}

fn line(columns: [Option<String>; 8]) -> String {
    let columns = columns.map(|column| column.unwrap_or_else(|| "\\N".to_owned()));
    format!("{}\n", columns.join("\t"))
}

/// A value in the text format of COPY.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            letter => line.push(letter),
        }
    }
    line
}

/// The result for a reader.
fn in_words(result: &Value) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: &Value| {
        let value = match value {
            Value::Null => return,
            Value::String(value) => value.clone(),
            value => value.to_string(),
        };
        text.push_str(&format!("{name:<22}{value}\n"));
    };
    for name in [
        "status",
        "dry_run",
        "scope",
        "collection_id",
        "collection_name",
        "title",
        "season",
        "episode",
    ] {
        add(name, &result[name]);
    }
    if let Some(stats) = result["stats"].as_object() {
        for (name, value) in stats {
            add(name, value);
        }
    }
    for name in ["last_ingest_time", "run_id"] {
        add(name, &result[name]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_would_end_a_value_or_a_line_is_escaped() {
        assert_eq!(escaped("a\\b\tc\nd\re"), "a\\\\b\\tc\\nd\\re");
        assert_eq!(escaped("\\N"), "\\\\N");
    }
}
