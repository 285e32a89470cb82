//! Every ```sql and ```sh example of the README and of docs/ is run, and the ```text block behind an SQL one is compared
//! with what the server says.
//!
//! The README is one story in one database. In docs/ each `## ` section has a database of its own, with the school of
//! the README's first example and the extension in it. In an expected block, `…` stands for any text; progress lines
//! (INFO) are never shown, since their figures differ. A block about `backfill_progress` is asked again until it fits, as
//! somebody who watches a run would. The role `media_operator` of an example is another one in each section.
//!
//! A line of a ```sh example has to end with exit status 0, or with the one in its comment `# exit status 3`; one that
//! ends with `&` goes on beside the examples behind it, which wait until its run is worked on.

use std::time::{Duration, Instant};

use media_assets_tests::psql::{self, root};
use media_assets_tests::{each_server, unique, Database, Server, Session};
use postgres::error::DbError;
use postgres::SimpleQueryMessage;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The documents of docs/, by name.
fn documents() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("docs"))
        .expect("docs/ is there")
        .map(|entry| entry.expect("readable").file_name().into_string())
        .filter_map(|name| name.ok().filter(|name| name.ends_with(".md")))
        .map(|name| format!("docs/{name}"))
        .collect();
    names.sort();
    assert!(names.len() >= 4, "documents are missing: {names:?}");
    names
}

/// A fenced example: what to run, and what it shows.
struct Example {
    /// Its file and line.
    place: String,
    /// Whether `code` is SQL, else a shell's.
    is_sql: bool,
    code: String,
    shown: Option<String>,
}

/// The examples of a document, one list for each `## ` section.
fn sections(file: &str) -> Vec<Vec<Example>> {
    let mut sections = vec![Vec::new()];
    let mut fence: Option<(String, String, usize)> = None;
    // Whether nothing stood between this line and the last example.
    let mut follows = false;
    for (number, line) in read(file).lines().enumerate() {
        let examples: &mut Vec<Example> = sections.last_mut().expect("never empty");
        match (&mut fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some((language.into(), String::new(), number + 1)),
            (Some((_, text, _)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (Some((language, text, start)), Some(_)) => {
                match language.as_str() {
                    "sql" | "sh" => examples.push(Example {
                        place: format!("{file}:{start}"),
                        is_sql: language == "sql",
                        code: text.clone(),
                        shown: None,
                    }),
                    "text" if follows => {
                        let example = examples.last_mut().expect("it follows one");
                        example.shown = Some(text.clone());
                    }
                    _ => {}
                }
                follows = language == "sql";
                fence = None;
            }
            (None, None) if line.starts_with("## ") => {
                sections.push(Vec::new());
                follows = false;
            }
            (None, None) => follows &= line.trim().is_empty(),
        }
    }
    assert!(fence.is_none(), "{file}: a fence is not closed");
    sections
}

/// Statements as psql sends them: each ends with a semicolon at the end of a line, outside of a dollar quote.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in sql.lines() {
        current.push_str(line);
        current.push('\n');
        let code = line.split(" -- ").next().unwrap_or_default().trim_end();
        if code.ends_with(';') && current.matches("$$").count().is_multiple_of(2) {
            statements.push(std::mem::take(&mut current));
        }
    }
    assert!(current.trim().is_empty(), "a statement without its end: {current}");
    statements
}

/// What one statement gave: names of the columns, rows, and messages as psql prints them.
#[derive(Default)]
struct Given {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    messages: Vec<String>,
    failed: bool,
}

fn run(session: &mut Session, sql: &str) -> Given {
    let mut given = Given::default();
    session.take_notices();
    let failure = match session.client.simple_query(sql) {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::RowDescription(columns) => {
                        given.columns = columns.iter().map(|c| c.name().to_owned()).collect();
                    }
                    SimpleQueryMessage::Row(row) => given.rows.push(
                        (0..row.len())
                            .map(|i| row.get(i).unwrap_or_default().trim().to_owned())
                            .collect(),
                    ),
                    _ => {}
                }
            }
            None
        }
        Err(error) => Some(error.as_db_error().expect("the server's own error").clone()),
    };
    given.failed = failure.is_some();
    for message in session.take_notices().iter().chain(&failure) {
        given.messages.extend(printed(message));
    }
    given
}

/// A message as psql prints it, with the SQLSTATE (as with VERBOSITY verbose) and without.
fn printed(message: &DbError) -> Vec<String> {
    let level = message.severity();
    let mut lines = vec![
        format!("{level}:  {}", message.message()),
        format!("{level}:  {}: {}", message.code().code(), message.message()),
    ];
    lines.extend(message.detail().map(|text| format!("DETAIL:  {text}")));
    lines.extend(message.hint().map(|text| format!("HINT:  {text}")));
    // A text of several lines is shown on several.
    let lines = lines.iter().flat_map(|text| text.lines());
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// Whether `text` fits `shown`, in which `…` stands for anything.
fn fits(shown: &str, text: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn cells(line: &str) -> Vec<String> {
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn is_rule(line: &str) -> bool {
    line.contains("--") && line.chars().all(|c| matches!(c, '-' | '+' | ' '))
}

/// What differs between a statement's outcome and the block that shows it; empty when nothing does.
fn differences(given: &Given, shown: &str) -> Vec<String> {
    const LEVELS: [&str; 5] = ["NOTICE:", "WARNING:", "ERROR:", "DETAIL:", "HINT:"];
    let mut wrong = Vec::new();
    let (mut messages, mut table) = (Vec::new(), Vec::new());
    for line in shown.lines() {
        let is_message = LEVELS.iter().any(|level| line.starts_with(level));
        if is_message {
            messages.push(line.trim_end());
        } else {
            table.push(line);
        }
    }
    for message in &messages {
        if !given.messages.iter().any(|said| fits(message, said)) {
            wrong.push(format!("not said: {message}\nsaid: {:#?}", given.messages));
        }
    }
    if given.failed != messages.iter().any(|line| line.starts_with("ERROR:")) {
        wrong.push(format!("failed: {}, said: {:#?}", given.failed, given.messages));
    }
    let Some(first) = table.first() else {
        return wrong;
    };
    let (columns, rows): (Vec<String>, Vec<Vec<String>>) = if first.starts_with("-[ RECORD") {
        let mut columns = Vec::new();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for line in &table {
            if line.starts_with("-[ RECORD") {
                rows.push(Vec::new());
                columns.clear();
            } else if let Some((name, value)) = line.split_once('|') {
                columns.push(name.trim().to_owned());
                let row = rows.last_mut().expect("a record has begun");
                row.push(value.trim().to_owned());
            }
        }
        (columns, rows)
    } else {
        let lines = table.iter().skip(1);
        let lines = lines.filter(|line| !is_rule(line) && !line.starts_with('('));
        let lines = lines.filter(|line| !line.trim().is_empty());
        (cells(first), lines.map(|line| cells(line)).collect())
    };
    if columns != given.columns {
        wrong.push(format!("columns {:?}, shown are {columns:?}", given.columns));
    }
    let same = rows.len() == given.rows.len()
        && rows
            .iter()
            .zip(&given.rows)
            .all(|(shown, row)| shown.len() == row.len() && shown.iter().zip(row).all(|(s, r)| fits(s, r)));
    if !same {
        wrong.push(format!("rows {:#?}\nshown are {rows:#?}", given.rows));
    }
    wrong
}

/// How long an example about `backfill_progress` is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs examples in order; gives all that is not as the document says.
fn run_examples(database: &Database, session: &mut Session, examples: &[Example]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut shell = Shell::new(database);
    for example in examples {
        let place = &example.place;
        if !example.is_sql {
            wrong.extend(shell.run(session, &example.code).map(|what| format!("{place}: {what}")));
            continue;
        }
        let all = statements(&example.code);
        for (index, sql) in all.iter().enumerate() {
            let shown = example.shown.as_deref().filter(|_| index + 1 == all.len());
            let asked = Instant::now();
            let differs = loop {
                let given = run(session, sql);
                let differs = match shown {
                    Some(shown) => differences(&given, shown),
                    None if given.failed => vec![format!("{:#?}", given.messages)],
                    None => Vec::new(),
                };
                let watches = shown.is_some() && sql.contains("FROM backfill_progress");
                if differs.is_empty() || !watches || asked.elapsed() > PATIENCE {
                    break differs;
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            wrong.extend(differs.into_iter().map(|what| format!("{place}: {what}\nof: {sql}")));
        }
    }
    wrong
}

/// Where the ```sh examples of a section run: a folder of their own, with the clone's `sql/` in it, and as `exports/` the
/// exports that the tests have.
struct Shell<'d> {
    database: &'d Database,
    folder: std::path::PathBuf,
    beside: Vec<std::process::Child>,
}

impl<'d> Shell<'d> {
    fn new(database: &'d Database) -> Self {
        let folder = std::env::temp_dir().join(unique("media_assets_shell"));
        std::fs::create_dir(&folder).expect("a folder can be made");
        let sql = root().join("sql").canonicalize().expect("sql/ is there");
        std::os::unix::fs::symlink(sql, folder.join("sql")).expect("a link can be made");
        let exports = root().join("tests/data").canonicalize().expect("tests/data is there");
        std::os::unix::fs::symlink(exports, folder.join("exports")).expect("a link can be made");
        Shell {
            database,
            folder,
            beside: Vec::new(),
        }
    }

    /// Runs the lines one after the other; gives the first that ends otherwise than it should.
    fn run(&mut self, session: &mut Session, lines: &str) -> Option<String> {
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let status = line
                .split("# exit status ")
                .nth(1)
                .map_or(0, |status| status.trim().parse().expect("the exit status is a number"));
            let mut command = self.database.command("sh");
            command.current_dir(&self.folder).arg("-c");
            if let Some(line) = line.strip_suffix('&') {
                command.arg(format!("exec {line}"));
                self.beside.push(psql::start(command));
                session.wait_until("SELECT EXISTS (SELECT FROM backfill_progress WHERE workers > 0)");
                continue;
            }
            command.arg(line);
            let ended = psql::run(command);
            if ended.status != Some(status) {
                return Some(format!("{line}\nended with {ended:#?}"));
            }
        }
        None
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        for child in &mut self.beside {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A database with the school of the README's first example.
fn school(server: &Server) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    let readme = sections("README.md");
    let example = readme.iter().flatten().next();
    session.run(&example.expect("the README has examples").code);
    (database, session)
}

#[test]
fn the_readme_is_true() {
    each_server(|server| {
        let database = server.empty_database();
        let examples: Vec<Example> = sections("README.md").into_iter().flatten().collect();
        assert!(examples.len() >= 4, "the README has lost its examples");
        let wrong = run_examples(&database, &mut database.session(), &examples);
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    });
}

#[test]
fn the_documents_are_true() {
    each_server(|server| {
        let mut wrong = Vec::new();
        let mut run = 0;
        for file in documents() {
            for mut examples in sections(&file).into_iter().filter(|list| !list.is_empty()) {
                let (database, mut session) = school(server);
                let operator = server.role(&database);
                for example in &mut examples {
                    example.code = example.code.replace("media_operator", &operator.name);
                }
                wrong.extend(run_examples(&database, &mut session, &examples));
                run += examples.len();
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        assert!(run >= 20, "only {run} examples were found");
    });
}

#[test]
fn the_reference_names_every_function_column_and_setting() {
    let reference = read("docs/reference.md");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SELECT asset_key_version()");
        let mut names = session.rows(
            "SELECT DISTINCT p.proname::text || '(' FROM pg_proc p
             JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
             JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'media_assets'
             WHERE p.proname <> 'run_tiny_job'
             UNION
             SELECT DISTINCT a FROM pg_proc p CROSS JOIN unnest(p.proargnames) a
             WHERE p.proname IN ('backfill_lesson_assets', 'explain_lesson_assets', 'verify_lesson_assets', 'backfill_asset_keys',
                                 'normalize_lesson_media', 'parse_media_link', 'check_asset_tables', 'dedupe_asset_usages',
                                 'backfill_jellyfin_metadata', 'explain_jellyfin_metadata', 'verify_jellyfin_metadata', 'jellyfin_candidates',
                                 'run_backfill', 'set_backfill_pace', 'undo_backfill', 'explain_undo', 'prune_backfill_runs')
             UNION
             SELECT name FROM pg_settings WHERE name LIKE 'media\\_assets.%'",
        );
        names.extend(session.rows(
            "SELECT '`' || c.relname || '`' FROM pg_class c
             JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
             JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'media_assets'
             WHERE c.relkind IN ('r', 'v')
             UNION
             SELECT '`' || a.attname || '`' FROM pg_attribute a
             JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = a.attrelid AND d.deptype = 'e'
             JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'media_assets'
             JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'v')
             WHERE a.attnum > 0 AND NOT a.attisdropped",
        ));
        let missing: Vec<String> = names
            .into_iter()
            .flatten()
            .flatten()
            .filter(|name| !reference.contains(name.as_str()))
            .collect();
        assert!(missing.is_empty(), "docs/reference.md misses {missing:?}");
    });
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut files = documents();
    files.extend(["README.md".to_owned(), "CHANGELOG.md".to_owned()]);
    for file in files {
        let text = read(&file);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = root().join(&file);
            let path = folder.parent().expect("a file has a folder").join(target);
            assert!(path.exists(), "{file} links to {link}, which is not there");
        }
    }
}

#[test]
fn shown_text_fits_with_gaps() {
    assert!(fits("a…c", "abbc"));
    assert!(fits("…", ""));
    assert!(fits("plain", "plain"));
    assert!(!fits("plain", "plain text"));
    assert!(!fits("a…c", "abcd"));
    assert!(!fits("…b…a", "a b"));
}
