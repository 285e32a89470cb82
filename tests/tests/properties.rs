//! Random lessons × random rows that are there already: a dry run predicts an execute to the unit,
//! an execute leaves nothing to do, and a second one writes no WAL.

use media_assets_tests::application::{assert_items_are_settled, assert_verified, contents, explained_counters};
use media_assets_tests::random::{fill, scope};
use media_assets_tests::{each_server, Application, Counters, Session};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::SeedableRng;

/// Databases on each server, unless `MEDIA_ASSETS_PROPERTY_ROUNDS` asks for more.
fn rounds() -> u64 {
    let asked = std::env::var("MEDIA_ASSETS_PROPERTY_ROUNDS");
    asked.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(60)
}

fn read_only(session: &mut Session, query: &str) -> Counters {
    session.run("BEGIN READ ONLY");
    let counters = session.counters(query);
    session.run("COMMIT");
    counters
}

#[test]
fn dry_run_equals_execute_equals_second_look() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SET media_assets.progress = off");
        Application::create(&mut session);
        for seed in 0..rounds() {
            let mut random = StdRng::seed_from_u64(seed);
            let wrongly_keyed = fill(&mut session, &mut random);
            let filters = scope(&mut random);
            let batch = *[1, 2, 3, 7, 20, 500].choose(&mut random).expect("not empty");
            let call = |batch: u32, execute: bool| {
                format!("SELECT * FROM backfill_lesson_assets({batch}, {execute}{filters})")
            };
            let about = format!("seed {seed}, batch {batch}{filters}");

            let before = contents(&mut session);
            let dry = read_only(&mut session, &call(batch, false));
            assert_eq!(before, contents(&mut session), "a dry run writes nothing ({about})");
            dry.expect_sums();
            // the size of a batch changes how it is done, not what is decided
            let other = read_only(&mut session, &call(batch + 1, false));
            assert_eq!(
                without_batches(&dry),
                without_batches(&other),
                "another batch size ({about})"
            );
            let explained = read_only(&mut session, &explained_counters(filters.trim_start_matches(", ")));
            for (name, value) in &explained.0 {
                assert_eq!(*value, Some(dry.get(name)), "explain: {name} ({about})");
            }

            let executed = session.counters(&call(batch, true));
            assert_eq!(dry, executed, "predicted = executed ({about})");
            if filters.is_empty() {
                settled(&mut session, wrongly_keyed);
            }

            let rows = contents(&mut session);
            session.run("VACUUM ANALYZE lesson, assets, asset_usages");
            let second_look = read_only(&mut session, &call(batch, false));
            second_look.expect_no_work();
            let second = session.counters(&call(batch, true));
            assert_eq!(second_look, second, "second look = second run ({about})");
            assert_eq!(rows, contents(&mut session), "a second run changes nothing ({about})");
            for name in ["lessons_scanned", "media_items_scanned", "media_items_eligible"] {
                assert_eq!(second.get(name), executed.get(name), "{name} ({about})");
            }
            assert_writes_no_wal(&mut session, &call(batch, true), &about);
        }
    });
}

/// Asserts that a call writes next to no WAL but the ledger's row of the run, in the best of three: reading may tidy a
/// page of a catalog or of a table that VACUUM could not, and that is not the call's doing.
fn assert_writes_no_wal(session: &mut Session, call: &str, about: &str) {
    // A run over no lesson at all writes that row, and nothing else.
    let nothing = "SELECT * FROM backfill_lesson_assets(execute => true, max_lessons => 0, organization_id => '00000000-0000-0000-0000-000000000000')";
    session.run("SET media_assets.log_decisions = none");
    let mut written = Vec::new();
    for _ in 0..3 {
        session.run("VACUUM lesson, assets, asset_usages, backfill_runs, backfill_ranges");
        written.push(session.wal_bytes(call) - session.wal_bytes(nothing));
        if written.last() < Some(&400) {
            session.run("RESET media_assets.log_decisions");
            return;
        }
    }
    panic!("a run with nothing to do wrote {written:?} bytes of WAL more than one over nothing ({about})");
}

fn without_batches(counters: &Counters) -> Counters {
    Counters(
        counters
            .0
            .iter()
            .filter(|(name, _)| name != "batches")
            .cloned()
            .collect(),
    )
}

/// What holds after a run over everything.
fn settled(session: &mut Session, wrongly_keyed: bool) {
    // an HLS item has no key of its own; it is left out here and looked at in the vectors
    session.run(
        "CREATE TEMP TABLE kept AS SELECT * FROM lesson;
         UPDATE lesson SET videos = (SELECT jsonb_agg(CASE WHEN n.canonical_key IS NULL THEN 'null' ELSE e END ORDER BY i)
                                     FROM jsonb_array_elements(videos) WITH ORDINALITY x (e, i), normalize_lesson_media('lesson_video', e) n)
         WHERE jsonb_typeof(videos) = 'array'",
    );
    assert_items_are_settled(session);
    session.run("TRUNCATE lesson; INSERT INTO lesson SELECT * FROM kept; DROP TABLE kept");
    if !wrongly_keyed {
        assert_verified(session);
    }
}

#[test]
fn an_execute_of_parts_equals_an_execute_of_all() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SET media_assets.progress = off");
        Application::create(&mut session);
        for seed in 1000..1005 {
            let application = Application::default();
            fill(&mut session, &mut StdRng::seed_from_u64(seed));
            let whole = read_only(&mut session, "SELECT * FROM backfill_lesson_assets()");
            let first = session.counters("SELECT * FROM backfill_lesson_assets(3, true, max_lessons => 7)");
            let rest = session.counters(&format!(
                "SELECT * FROM backfill_lesson_assets(3, true, after => '{}')",
                application.lesson(7)
            ));
            for (name, value) in without_batches(&whole).0.iter().filter(|(name, _)| name != "run_id") {
                assert_eq!(
                    *value,
                    Some(first.get(name) + rest.get(name)),
                    "{name} of the parts (seed {seed})"
                );
            }
        }
    });
}
