//! Collection ingest as functions: the decision, the run, what it would do, what it did.

use media_assets_core::jobs::collection_ingest::{self as rules, Counters, Outcome};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use super::tables::put_steps;
use crate::engine::ledger::record::{NewRun, Recorder, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::{self, rights, Options, Tally};
use crate::error::invalid_argument;
use crate::jobs::collection_ingest::call::{self, Asked, Collection};
use crate::jobs::collection_ingest::items::{Fate, Items, Page};
use crate::jobs::collection_ingest::removals::{Removals, Removed};
use crate::jobs::collection_ingest::spool::{self, Spool};
use crate::jobs::collection_ingest::tables::Tables;
use crate::jobs::collection_ingest::{changes, table_ddl, JOB};
use crate::jobs::table_ddl as steps;
use crate::postgres::arrays::{text_datum, uuid_datum};
use crate::postgres::backend;
use crate::postgres::jsonb::{from_text, Jsonb};
use crate::postgres::record::{form, Record};
use crate::postgres::row_set::RowSet;
use crate::postgres::spi::{self, Connection, Mode, Parameter};
use crate::postgres::transaction;

#[pg_extern(sql = r#"
CREATE FUNCTION create_ingest_tables() RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn create_ingest_tables(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    backend::prevent_if_read_only("create_ingest_tables()");
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let list = table_ddl::create(connection)?;
        steps::run(connection, &list);
        put_steps(&rows, &list, true);
        Ok(())
    })
}

/// What a run did, or would do.
struct Ingested {
    collection: Collection,
    counters: Counters,
    /// As PostgreSQL counts it.
    last_ingest_time: Option<i64>,
    run_id: Option<i64>,
}

/// What explain shows.
enum Shown<'s> {
    Item(&'s Page, &'s Fate),
    Removed(&'s Removed),
}

/// Arguments that must not be NULL.
fn asked(
    collection: Option<&str>,
    (title, season, episode): (Option<&str>, Option<i32>, Option<i32>),
    reconcile: Option<bool>,
    max_removed_fraction: Option<f64>,
) -> Result<Asked, ErrorReport> {
    let not_null = |name: &str, hint: &str| invalid_argument(format!("{name} must not be NULL"), hint);
    Ok(Asked {
        collection: collection
            .ok_or_else(|| {
                not_null(
                    "collection",
                    "Give the UUID, the external id or the name of a collection.",
                )
            })?
            .to_owned(),
        title: title.map(str::to_owned),
        season,
        episode,
        reconcile: reconcile.unwrap_or(false),
        max_removed_fraction: max_removed_fraction.unwrap_or(0.0),
        is_null: match (reconcile, max_removed_fraction) {
            (None, _) => Some(("reconcile", "true soft-deletes what was not seen.")),
            (_, None) => Some(("max_removed_fraction", "Give a fraction from 0 to 1.")),
            _ => None,
        },
    })
}

fn run(
    connection: &Connection,
    asked: &Asked,
    items: pg_sys::Oid,
    options: &Options,
    mut each: impl FnMut(Shown<'_>),
) -> Result<Ingested, ErrorReport> {
    let mode = options.mode();
    let tables = Tables::load(connection, &|_| None, options.execute)?;
    let collection = call::open(connection, &tables, asked, mode)?;
    let mut spool = Spool::open(connection, items, &collection, asked, mode)?;
    let unseen = spool.check(connection, &tables, &collection, asked, i64::from(options.batch), mode)?;
    let ledger;
    let mut recorder = None;
    if options.execute {
        ledger = Ledger::open(connection)?;
        let run_id = new_run(&tables, &collection, asked, options).start(connection, &ledger);
        crate::postgres::message::log!(
            "media_assets run={run_id} job={JOB} event=validated gates=collection,prerequisites,scope"
        );
        crate::postgres::message::log!("media_assets run={run_id} job={JOB} event=started");
        transaction::at_end(
            move || crate::postgres::message::log!("media_assets run={run_id} job={JOB} event=committed"),
            move || crate::postgres::message::log!("media_assets run={run_id} job={JOB} event=rolled_back"),
        );
        recorder = Some(Recorder::new(connection, &ledger, run_id));
    }
    let mut job = Items::new(&tables, &collection, spool, options.execute);
    let mut unkeyable = 0;
    let summary = engine::run(connection, &mut job, options, recorder.as_mut(), |page, _, decided| {
        for fate in &decided.fates {
            warn_of_unkeyable(page, fate, &mut unkeyable);
            each(Shown::Item(page, fate));
        }
    })?;
    drop(job);
    let (mut counters, mut rows, mut batches) = (summary.counters, summary.rows, summary.batches);
    if !unseen.is_empty() {
        if let Some(recorder) = &mut recorder {
            recorder.phase = 1;
        }
        let mut removals = Removals::new(&tables, unseen);
        let summary = engine::run_phase(
            connection,
            &mut removals,
            options,
            recorder.as_mut(),
            |_, _, decided| {
                for removed in &decided.removed {
                    each(Shown::Removed(removed));
                }
            },
        )?;
        counters.add(&summary.counters);
        rows += summary.rows;
        batches += summary.batches;
    }
    let mut ingested = Ingested {
        last_ingest_time: None,
        run_id: None,
        counters,
        collection,
    };
    match &mut recorder {
        Some(recorder) => {
            recorder.phase = 2;
            ingested.last_ingest_time = touch(connection, &tables, &ingested.collection, recorder)?;
            recorder.finish_function(connection, &counters.values(), rows, batches);
            ingested.run_id = Some(recorder.run_id);
            crate::postgres::message::log!("media_assets run={} job={JOB} event=finished", recorder.run_id);
        }
        None => ingested.last_ingest_time = last_ingest_time(connection, &tables, &ingested.collection),
    }
    Ok(ingested)
}

/// Tells of items that could not be keyed, the first ones by name.
fn warn_of_unkeyable(page: &Page, fate: &Fate, count: &mut i64) {
    const MOST: i64 = 20;
    if fate.outcome != Outcome::Refused(rules::Refusal::Unkeyable) {
        return;
    }
    *count += 1;
    if *count <= MOST {
        match page.locator(fate.row) {
            Some(locator) => {
                let locator = rules::without_secrets(locator);
                crate::postgres::message::warning!("{JOB}: an item cannot be keyed, its locator is {locator:?}")
            }
            None => crate::postgres::message::warning!("{JOB}: an item cannot be keyed, it has no locator"),
        }
    }
    if *count == MOST {
        crate::postgres::message::warning!("{JOB}: further items that cannot be keyed are counted and not named");
    }
}

fn new_run<'n>(tables: &Tables, collection: &Collection, asked: &Asked, options: &Options) -> NewRun<'n> {
    let mut given = vec![
        ("collection_uuid", uuid::Uuid::from_bytes(collection.uuid).to_string()),
        ("scope", asked.level().name().to_owned()),
        ("reconcile", asked.reconcile.to_string()),
    ];
    let optional = [
        ("collection_name", collection.name.clone()),
        ("title", asked.title.clone()),
        ("season", asked.season.map(|number| number.to_string())),
        ("episode", asked.episode.map(|number| number.to_string())),
    ];
    given.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    NewRun {
        job: JOB,
        mode: RunMode::Function,
        batch: options.batch,
        options: given,
        relations: tables.names(),
        phases: &["items", "reconcile"],
        bounds: vec![None; 2],
        counter_names: Counters::names(),
        rows_total: None,
    }
}

/// Moves `last_ingest_time`, once for the run.
fn touch(
    connection: &Connection,
    tables: &Tables,
    collection: &Collection,
    recorder: &mut Recorder<'_>,
) -> Result<Option<i64>, ErrorReport> {
    let time = |alias: &str| {
        format!("pg_catalog.to_jsonb({alias}.last_ingest_time::pg_catalog.timestamptz AT TIME ZONE 'UTC') #>> '{{}}'")
    };
    let table = &tables.collections.sql_name;
    let rows = connection.query(
        &format!(
            "UPDATE {table} c SET last_ingest_time = pg_catalog.clock_timestamp()
             FROM (SELECT b.uuid, {} AS time FROM {table} b WHERE b.uuid = $1) before
             WHERE c.uuid = before.uuid RETURNING c.last_ingest_time::pg_catalog.timestamptz, before.time, {}",
            time("b"),
            time("c")
        ),
        Mode::Write,
        &[Parameter::uuid(collection.uuid)],
    );
    if rows.is_empty() {
        return Err(crate::error::wrong_state(
            "last_ingest_time of the collection could not be written",
            "A trigger kept its row from being updated.",
            format!("SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass;"),
        ));
    }
    recorder.keep_change(connection, |list| {
        changes::add(
            list,
            changes::TIME,
            table,
            collection.uuid,
            rows.text(0, 1),
            rows.text(0, 2),
        );
    });
    recorder.add_option(connection, "last_ingest_time", rows.text(0, 2).as_deref());
    Ok(rows.get(0, 0))
}

fn last_ingest_time(connection: &Connection, tables: &Tables, collection: &Collection) -> Option<i64> {
    let rows = connection.query(
        &format!(
            "SELECT c.last_ingest_time::pg_catalog.timestamptz FROM {} c WHERE c.uuid = $1",
            tables.collections.sql_name
        ),
        Mode::Read,
        &[Parameter::uuid(collection.uuid)],
    );
    if rows.is_empty() {
        return None;
    }
    rows.get(0, 0)
}

#[pg_extern(sql = r#"
CREATE FUNCTION ingest_collection(collection text, items regclass, execute boolean DEFAULT false, title text DEFAULT NULL,
    season integer DEFAULT NULL, episode integer DEFAULT NULL, reconcile boolean DEFAULT false,
    max_removed_fraction double precision DEFAULT 0.1, batch integer DEFAULT 500,
    OUT status text, OUT scope text, OUT collection_uuid uuid, OUT collection_name text, OUT title text, OUT season integer,
    OUT episode integer, OUT assets_discovered bigint, OUT assets_ingested bigint, OUT assets_updated bigint,
    OUT assets_skipped bigint, OUT assets_failed bigint, OUT duplicates_prevented bigint, OUT assets_removed bigint,
    OUT changed_content bigint, OUT changed_enrichers bigint, OUT last_ingest_time timestamptz, OUT run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
#[allow(clippy::too_many_arguments, reason = "they are the page's")]
fn ingest_collection(
    collection: Option<&str>,
    items: Option<pg_sys::Oid>,
    execute: Option<bool>,
    title: Option<&str>,
    season: Option<i32>,
    episode: Option<i32>,
    reconcile: Option<bool>,
    max_removed_fraction: Option<f64>,
    batch: Option<i32>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, None)?;
    let asked = asked(collection, (title, season, episode), reconcile, max_removed_fraction)?;
    let items = spool::given(items)?;
    let ingested = spi::connect(|connection| {
        if options.execute {
            rights::check_can_execute("ingest_collection")?;
        }
        run(connection, &asked, items, &options, |_| {})
    })?;
    let mut values = vec![
        Some(text_datum("success")),
        Some(text_datum(asked.level().name())),
        Some(uuid_datum(ingested.collection.uuid)),
        ingested.collection.name.as_deref().map(text_datum),
        title.map(text_datum),
        season.map(Datum::from),
        episode.map(Datum::from),
    ];
    values.extend(
        ingested
            .counters
            .values()
            .into_iter()
            .map(|value| Some(Datum::from(value))),
    );
    values.extend([
        ingested.last_ingest_time.map(Datum::from),
        ingested.run_id.map(Datum::from),
    ]);
    Ok(form(fcinfo, &values))
}

#[pg_extern(sql = r#"
CREATE FUNCTION explain_ingest_collection(collection text, items regclass, title text DEFAULT NULL, season integer DEFAULT NULL,
    episode integer DEFAULT NULL, reconcile boolean DEFAULT false, max_removed_fraction double precision DEFAULT 0.1)
RETURNS TABLE (locator text, canonical_key text, action text, reason text, next_state text, clears_approval boolean)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
#[allow(clippy::too_many_arguments, reason = "those of ingest_collection")]
fn explain_ingest_collection(
    collection: Option<&str>,
    items: Option<pg_sys::Oid>,
    title: Option<&str>,
    season: Option<i32>,
    episode: Option<i32>,
    reconcile: Option<bool>,
    max_removed_fraction: Option<f64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let options = Options::new(Some(500), Some(false), None)?;
    let asked = asked(collection, (title, season, episode), reconcile, max_removed_fraction)?;
    let items = spool::given(items)?;
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| run(connection, &asked, items, &options, |shown| rows.put(&explained(shown))))?;
    Ok(())
}

fn explained(shown: Shown<'_>) -> [Option<Datum>; 6] {
    match shown {
        Shown::Item(page, fate) => {
            let (next_state, clears) = match fate.outcome {
                Outcome::Decided(decision) => (decision.next_state, decision.clears_approval),
                Outcome::Refused(_) => (None, false),
            };
            [
                page.locator(fate.row).map(text_datum),
                page.key(fate.row).map(text_datum),
                Some(text_datum(fate.outcome.action())),
                Some(text_datum(fate.outcome.reason())),
                next_state.map(|state| text_datum(state.name())),
                Some(Datum::from(clears)),
            ]
        }
        Shown::Removed(removed) => [
            None,
            Some(text_datum(&removed.key)),
            Some(text_datum("remove")),
            Some(text_datum("not_seen")),
            Some(text_datum(&removed.state)),
            Some(Datum::from(true)),
        ],
    }
}

/// What a run did, as JSON; also of a run that the same statement has just made.
#[pg_extern(volatile, parallel_restricted)]
fn ingest_result(run_id: Option<i64>) -> Result<Jsonb, ErrorReport> {
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        if run.job != JOB {
            return Err(invalid_argument(
                format!("run {} is no ingest but a run of {}", run.run_id, run.job),
                format!("SELECT backfill_report({});", run.run_id),
            ));
        }
        let rows = ledger.run(
            connection,
            Mode::Write,
            "SELECT jsonb_build_object(
                 'status', CASE r.state WHEN 'finished' THEN 'success' ELSE r.state END,
                 'scope', r.options -> 'scope',
                 'collection_id', r.options -> 'collection_uuid',
                 'collection_name', r.options -> 'collection_name',
                 'stats', (SELECT jsonb_object_agg(v.name, v.value) FROM ~backfill_ranges g CROSS JOIN unnest(r.counter_names, g.counters) v(name, value)
                           WHERE g.run_id = r.run_id),
                 'asset_ids', CASE WHEN r.changes_kept THEN (
                     SELECT jsonb_build_object('created', coalesce(jsonb_agg(u.id ORDER BY c.change_id, u.n) FILTER (WHERE c.action = 'ingest_inserted'), '[]'),
                                               'updated', coalesce(jsonb_agg(u.id ORDER BY c.change_id, u.n) FILTER (WHERE c.action = 'ingest_updated'), '[]'))
                     FROM ~backfill_changes c CROSS JOIN unnest(c.uuids) WITH ORDINALITY u(id, n)
                     WHERE c.run_id = r.run_id AND c.action IN ('ingest_inserted', 'ingest_updated')) END,
                 'last_ingest_time', r.options ->> 'last_ingest_time' || '+00:00')::text
             FROM ~backfill_runs r WHERE r.run_id = $1",
            &[run.run_id.into()],
        );
        Ok(from_text(&rows.text(0, 0).unwrap_or_else(|| "null".to_owned())))
    })
}
