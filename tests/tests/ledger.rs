//! What the ledger keeps of runs: every executing one, its counters, its decisions, its relations; and nothing of dry ones.

use media_assets_tests::application::contents;
use media_assets_tests::runs::{close_gate, last_run, open_gate, state, with_lessons, Background};
use media_assets_tests::{each_server, literal, Application, Counters, Session};

const DRY: &str = "SELECT * FROM backfill_lesson_assets()";
const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";
const LEDGER: [&str; 7] = [
    "runs",
    "ranges",
    "requests",
    "decisions",
    "changes",
    "quarantine",
    "waits",
];

/// Rows of all tables of the ledger.
fn ledger_rows(session: &mut Session) -> i64 {
    let counts = LEDGER.map(|table| format!("(SELECT count(*) FROM backfill_{table})"));
    session.number(&format!("SELECT {}", counts.join(" + ")))
}

/// The counters of a run as the ledger has them.
fn stored_counters(session: &mut Session, run_id: i64) -> Vec<(String, Option<i64>)> {
    session
        .rows(&format!(
            "SELECT v.name, sum(v.value) FROM backfill_runs r JOIN backfill_ranges g USING (run_id),
                    unnest(r.counter_names, g.counters) WITH ORDINALITY v(name, value, place)
             WHERE run_id = {run_id} GROUP BY v.place, v.name ORDER BY v.place"
        ))
        .into_iter()
        .map(|row| {
            (
                row[0].clone().expect("a name"),
                row[1].as_ref().map(|value| value.parse().expect("a number")),
            )
        })
        .collect()
}

fn assert_stored(session: &mut Session, counters: &Counters) {
    let run_id = counters
        .0
        .iter()
        .find(|(name, _)| name.ends_with("run_id"))
        .and_then(|(_, id)| *id)
        .expect("a run");
    let stored = stored_counters(session, run_id);
    assert!(stored.len() > 4);
    for (name, value) in &stored {
        assert_eq!(*value, Some(counters.get(name)), "{name} of run {run_id}");
    }
    let batches = session.number(&format!("SELECT batches FROM backfill_ranges WHERE run_id = {run_id}"));
    assert_eq!(batches, counters.get("batches"));
}

#[test]
fn every_executing_run_has_its_row_and_a_dry_run_none() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 20);
        application.add_lesson(&mut session, 21, "[null, {\"type\": \"upload\"}]");
        for call in [
            DRY,
            "SELECT * FROM explain_lesson_assets()",
            "SELECT * FROM verify_lesson_assets()",
            "SELECT * FROM backfill_asset_keys(refresh => true)",
            "CALL run_backfill('lesson_assets')",
            "CALL run_backfill('asset_keys', options => '{\"refresh\": true}')",
        ] {
            session.run(call);
            assert_eq!(ledger_rows(&mut session), 0, "{call}");
        }
        let sequence = "SELECT is_called FROM backfill_runs_run_id_seq";
        assert!(!session.is_true(sequence), "a dry run takes no number");
        session.run("SET application_name = 'the tool'");
        let lessons = session.counters("SELECT * FROM backfill_lesson_assets(7, true)");
        assert_stored(&mut session, &lessons);
        let keys = session.counters("SELECT * FROM backfill_asset_keys(7, true, true)");
        assert_stored(&mut session, &keys);
        let undone = session.counters(&format!("SELECT * FROM undo_backfill({}, true)", lessons.get("run_id")));
        assert_stored(&mut session, &undone);
        session.counters(&format!("SELECT * FROM undo_backfill({})", lessons.get("run_id")));
        session.run("CALL run_backfill('lesson_assets', 7, true)");
        let by_procedure = last_run(&mut session);
        for (name, value) in stored_counters(&mut session, by_procedure) {
            assert_eq!(value, Some(lessons.get(&name)), "{name} of the procedure");
        }
        let rows = session.rows("SELECT job, mode, state, run_by = current_user, application_name, batch, finished_at >= started_at, options FROM backfill_runs ORDER BY run_id");
        let rows: Vec<String> = rows
            .iter()
            .map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(
            rows,
            [
                "lesson_assets|function|finished|t|the tool|7|t|{}".to_owned(),
                "asset_keys|function|finished|t|the tool|7|t|{\"refresh\": \"true\"}".to_owned(),
                format!(
                    "undo|function|finished|t|the tool|500|t|{{\"run_id\": \"{}\"}}",
                    lessons.get("run_id")
                ),
                "lesson_assets|procedure|finished|t|the tool|7|t|{}".to_owned(),
            ]
        );
        let views = session.rows("SELECT run_id FROM backfill_progress WHERE state = 'finished' AND percent = 100 AND rows_per_second >= 0 AND workers = 0 AND eta IS NULL");
        assert_eq!(views.len(), 4);
    });
}

#[test]
fn a_function_that_is_rolled_back_leaves_no_run() {
    each_server(|server| {
        let (_database, mut session, _) = with_lessons(server, 5);
        session.run("BEGIN");
        let run_id = session.counters(EXECUTE).get("run_id");
        assert_eq!(state(&mut session, run_id), "finished");
        session.run("ROLLBACK");
        assert_eq!(ledger_rows(&mut session), 0);
        session.run("BEGIN; SAVEPOINT s");
        session.counters(EXECUTE);
        session.run("ROLLBACK TO s; COMMIT");
        assert_eq!(ledger_rows(&mut session), 0);
        session.run("CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'stop' USING ERRCODE = '57014'; END $$;
                     CREATE TRIGGER cancel BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION cancel()");
        session.fails("57014", EXECUTE);
        assert_eq!(ledger_rows(&mut session), 0);
        session.run("DROP TRIGGER cancel ON lesson");
        let after = session.counters(EXECUTE);
        assert!(after.get("run_id") > run_id, "a number is not given twice");
    });
}

#[test]
fn decisions_are_kept_as_far_as_the_settings_say() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 10);
        application.add_lesson(
            &mut session,
            11,
            "[null, {\"type\": \"upload\"}, {\"type\": \"youtube\"}, 7]",
        );
        let kept = |session: &mut Session, settings: &str| -> Vec<String> {
            session.run(&format!("BEGIN; {settings}"));
            let run_id = session.counters(EXECUTE).get("run_id");
            let rows = session.rows(&format!(
                "SELECT concat_ws(' ', outcome, action, reason, count(*)) FROM backfill_decisions WHERE run_id = {run_id} GROUP BY outcome, action, reason ORDER BY 1"
            ));
            session.run("ROLLBACK");
            rows.into_iter().flatten().flatten().collect()
        };
        let skipped = ["skipped malformed 2", "skipped missing_key 1", "skipped missing_link 1"];
        let with = |first: &'static str| [&[first][..], &skipped[..]].concat();
        assert!(kept(&mut session, "SET LOCAL media_assets.log_decisions = 'none'").is_empty());
        assert_eq!(kept(&mut session, ""), skipped);
        assert_eq!(
            kept(&mut session, "SET LOCAL media_assets.log_decisions = 'skipped'"),
            skipped
        );
        assert_eq!(
            kept(&mut session, "SET LOCAL media_assets.log_decisions = 'changed'"),
            with("eligible create 10")
        );
        session.run(EXECUTE);
        assert_eq!(
            kept(&mut session, "SET LOCAL media_assets.log_decisions = 'changed'"),
            skipped
        );
        assert_eq!(
            kept(&mut session, "SET LOCAL media_assets.log_decisions = 'all'"),
            with("eligible reuse_asset_id 10")
        );
        for limit in [0, 3, 13, 14] {
            let settings = format!(
                "SET LOCAL media_assets.log_decisions = 'all'; SET LOCAL media_assets.log_decisions_limit = {limit}"
            );
            session.run(&format!("BEGIN; {settings}"));
            let run = session.counters("SELECT * FROM backfill_lesson_assets(2, true)");
            run.expect(&[("media_items_eligible", 10), ("skipped_malformed", 2)]);
            let rows = session.number(&format!(
                "SELECT count(*) FROM backfill_decisions WHERE run_id = {}",
                run.get("run_id")
            ));
            session.run("ROLLBACK");
            assert_eq!(rows, limit.min(14));
        }
        let places = session.rows(&format!(
            "SELECT item_key = '{}', slot, position, reason FROM backfill_decisions WHERE run_id = (SELECT max(run_id) FROM backfill_runs) ORDER BY decision_id",
            application.lesson(11)
        ));
        assert_eq!(places.len(), 4);
        assert_eq!(
            places[1],
            [
                Some("t".into()),
                Some("lesson_video".into()),
                Some("1".into()),
                Some("missing_key".into())
            ]
        );
    });
}

#[test]
fn a_report_tells_counters_reasons_failures_and_state() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 10);
        application.add_lesson(&mut session, 11, "[null, {\"type\": \"upload\"}]");
        session.run(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not with me'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id = '{}') EXECUTE FUNCTION refuse()",
            application.lesson(3)
        ));
        let run_id = session.counters(EXECUTE).get("run_id");
        let report = session.text(&format!("SELECT backfill_report({run_id})"));
        for words in [
            format!("{run_id} (lesson_assets, function)"),
            "finished".into(),
            "postgres".into(),
            "lessons_scanned                      11".into(),
            "assets_created                       9".into(),
            "errors                               1".into(),
            "skipped malformed".into(),
            "skipped missing_key".into(),
            "P0001".into(),
            format!("{}: not with me", application.lesson(3)),
        ] {
            assert!(report.contains(&words), "{words} in\n{report}");
        }
        session.fails_with_hint("42704", "SELECT backfill_report(4711)");
        session.fails_with_hint("42704", "SELECT backfill_report(NULL)");
        session.run("CALL run_backfill('lesson_assets', 2, true)");
        let run_id = last_run(&mut session);
        let report = session.text(&format!("SELECT backfill_report({run_id})"));
        assert!(report.contains("(lesson_assets, procedure)"), "{report}");
    });
}

#[test]
fn pruning_takes_runs_that_ended_long_ago_and_all_that_belongs_to_them() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 5);
        application.add_lesson(&mut session, 6, "[null]");
        let first = session.counters(EXECUTE).get("run_id");
        let second = session.counters(EXECUTE).get("run_id");
        assert_eq!(session.number("SELECT prune_backfill_runs('1 day')"), 0);
        session.run(&format!(
            "UPDATE backfill_runs SET finished_at = now() - interval '40 days' WHERE run_id = {first}"
        ));
        assert_eq!(session.number("SELECT prune_backfill_runs('41 days')"), 0);
        assert_eq!(session.number("SELECT prune_backfill_runs('39 days')"), 1);
        for table in LEDGER {
            let left = session.number(&format!("SELECT count(*) FROM backfill_{table} WHERE run_id = {first}"));
            assert_eq!(left, 0, "backfill_{table}");
        }
        assert_eq!(last_run(&mut session), second);
        session.fails_with_hint("42704", &format!("SELECT * FROM undo_backfill({first}, true)"));
        session.fails_with_hint("22023", "SELECT prune_backfill_runs(NULL)");
        // what is running stays, however old
        session.run(
            "UPDATE backfill_runs SET state = 'running', started_at = now() - interval '1 year', finished_at = NULL",
        );
        assert_eq!(session.number("SELECT prune_backfill_runs('1 day')"), 0);
    });
}

#[test]
fn a_run_goes_on_with_its_own_relations_under_another_search_path() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SET media_assets.progress = off; CREATE SCHEMA \"The \"\"School\"\"\"; SET search_path = \"The \"\"School\"\"\", public");
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 30);
        close_gate(&mut session, &application.lesson(15));
        let before = contents(&mut session);
        let run = Background::start(
            &database,
            None,
            "SET media_assets.progress = off; SET search_path = \"The \"\"School\"\"\", public",
            "CALL run_backfill('lesson_assets', 1, true)",
        );
        run.wait_at_gate(&mut session);
        let run_id = last_run(&mut session);
        session.run(&format!("SELECT pause_backfill({run_id})"));
        open_gate(&mut session);
        run.finish();
        let relations = session.rows(&format!(
            "SELECT key, value FROM backfill_runs, jsonb_each_text(relations) WHERE run_id = {run_id} ORDER BY 1"
        ));
        let relations: Vec<String> = relations
            .iter()
            .map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" "))
            .collect();
        let school = "\"The \"\"School\"\"\".";
        assert_eq!(
            relations,
            [
                format!("asset_usages {school}asset_usages"),
                format!("assets {school}assets"),
                format!("course {school}course"),
                format!("group {school}\"group\""),
                format!("lesson {school}lesson"),
                format!("lesson_media_state {school}lesson_media_state"),
            ]
        );
        // tables of the same names where the new search_path looks first
        let mut other = database.session();
        other.run("SET media_assets.progress = off; CREATE SCHEMA decoy; SET search_path = decoy, public");
        let decoy = Application::create(&mut other);
        decoy.add_uploads(&mut other, 1, 30);
        let decoys = contents(&mut other);
        other.run(&format!("CALL resume_backfill({run_id})"));
        assert_eq!(decoys, contents(&mut other));
        assert_eq!(session.number("SELECT count(*) FROM assets"), 30);
        let undone = other.counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"));
        undone.expect(&[("items_restored", 30), ("assets_removed", 30), ("conflicts", 0)]);
        assert_eq!(decoys, contents(&mut other));
        assert_eq!(before, contents(&mut session));
    });
}

/// Operators and functions of an attacker's, named like the server's own; each writes down who ran it.
const ATTACK: &str = r#"
    CREATE TABLE ran (who text, what text);
    GRANT INSERT, SELECT ON ran TO PUBLIC;
    CREATE FUNCTION note(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO attack.ran VALUES (current_user, what); EXCEPTION WHEN read_only_sql_transaction THEN NULL; END $$;
    CREATE FUNCTION eq8(l bigint, r bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('=8'); RETURN l OPERATOR(pg_catalog.=) r; END $$;
    CREATE FUNCTION eq4(l int, r int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('=4'); RETURN l OPERATOR(pg_catalog.=) r; END $$;
    CREATE FUNCTION eqt(l text, r text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('=text'); RETURN l OPERATOR(pg_catalog.=) r; END $$;
    CREATE FUNCTION eqn(l name, r name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('=name'); RETURN l OPERATOR(pg_catalog.=) r; END $$;
    CREATE FUNCTION equ(l uuid, r uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('=uuid'); RETURN l OPERATOR(pg_catalog.=) r; END $$;
    CREATE FUNCTION add8(l bigint, r bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('+'); RETURN l OPERATOR(pg_catalog.+) r; END $$;
    CREATE OPERATOR = (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = eq8);
    CREATE OPERATOR = (LEFTARG = int, RIGHTARG = int, FUNCTION = eq4);
    CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = eqt);
    CREATE OPERATOR = (LEFTARG = name, RIGHTARG = name, FUNCTION = eqn);
    CREATE OPERATOR = (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = equ);
    CREATE OPERATOR + (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = add8);
    CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('clock_timestamp'); RETURN pg_catalog.clock_timestamp(); END $$;
    CREATE FUNCTION jsonb_object(text[], text[]) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('jsonb_object'); RETURN pg_catalog.jsonb_object($1, $2); END $$;
    CREATE FUNCTION pg_has_role(oid, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('pg_has_role'); RETURN true; END $$;
    CREATE FUNCTION count() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('count'); RETURN 0; END $$;
    CREATE FUNCTION array_fill(bigint, int[]) RETURNS bigint[] LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('array_fill'); RETURN pg_catalog.array_fill($1, $2); END $$;
    CREATE FUNCTION concat(VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM attack.note('concat'); RETURN ''; END $$;
    CREATE TABLE backfill_runs (run_id bigint); CREATE TABLE backfill_ranges (run_id bigint)"#;

#[test]
fn operators_and_functions_of_an_attacker_do_not_run_as_the_owner() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 10);
        let role = server.role(&database);
        session.run(&format!(
            "CREATE SCHEMA attack; SET search_path = attack, pg_catalog, public; {ATTACK};
             GRANT USAGE ON SCHEMA attack, public TO {0}; SET search_path = public;
             GRANT ALL ON lesson, course, \"group\", assets, asset_usages TO {0}",
            role.name
        ));
        let mut caller = database.session_as(&role);
        caller.run("SET media_assets.progress = off; SET search_path = attack, pg_catalog, public, pg_temp");
        let run_id = caller.counters(EXECUTE).get("run_id");
        caller.run("CALL run_backfill('lesson_assets', 3, true)");
        caller.run("CALL run_backfill('asset_keys', 3, true, '{\"refresh\": true}')");
        for call in [
            format!("SELECT backfill_report({run_id})"),
            "SELECT * FROM backfill_progress".to_owned(),
            format!("SELECT * FROM explain_undo({run_id})"),
            format!("SELECT * FROM undo_backfill({run_id}, true)"),
            "SELECT prune_backfill_runs('1 day')".to_owned(),
        ] {
            caller.run(&call);
        }
        let ran = session.rows("SELECT who, string_agg(DISTINCT what, ' ') FROM attack.ran GROUP BY 1");
        let others: Vec<_> = ran
            .iter()
            .filter(|row| row[0].as_deref() != Some(role.name.as_str()))
            .collect();
        assert_eq!(ran.len(), 1, "the caller's own rights are all that there was: {ran:?}");
        assert!(others.is_empty(), "an attacker's code ran as somebody else: {others:?}");
        assert_eq!(session.number("SELECT count(*) FROM attack.backfill_runs"), 0);
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 4);
    });
}

#[test]
fn nothing_that_sql_can_call_writes_the_ledger_as_it_is_told() {
    each_server(|server| {
        let (_database, mut session, _) = with_lessons(server, 1);
        // who writes what: each function is here by name, so that a new one has to be thought about
        let functions = session.rows(
            "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
             JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'media_assets'
             WHERE p.proname LIKE '%backfill%' OR p.proname LIKE '%undo%' OR p.proname LIKE '%ledger%' OR p.proname LIKE '%quarantine%' ORDER BY 1",
        );
        let functions: Vec<String> = functions.into_iter().flatten().flatten().collect();
        assert_eq!(
            functions,
            [
                "backfill_asset_keys",
                "backfill_i2v_thumbnails",
                "backfill_jellyfin_metadata",
                "backfill_lesson_assets",
                "backfill_report",
                "backfill_s3_assets",
                "backfill_worker_is_alive",
                "cancel_backfill",
                "explain_undo",
                "join_backfill",
                "pause_backfill",
                "prune_backfill_runs",
                "resume_backfill",
                "retry_quarantined",
                "run_backfill",
                "set_backfill_pace",
                "undo_backfill",
            ]
        );
        let definers = session.rows(
            "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
             JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'media_assets' WHERE p.prosecdef",
        );
        assert!(definers.is_empty(), "SECURITY DEFINER: {definers:?}");
        let hostile = literal("'); DELETE FROM backfill_runs; --");
        session.run(&format!("SET application_name = {hostile}"));
        session.run(EXECUTE);
        assert_eq!(
            session.text("SELECT application_name FROM backfill_runs"),
            "'); DELETE FROM backfill_runs; --"
        );
    });
}
