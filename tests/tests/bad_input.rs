//! Bad input is an error with its SQLSTATE and the way out, never a panic and never a half-written lesson.

use media_assets_tests::application::contents;
use media_assets_tests::{describe, each_server, words, Application, Database, Server, Session};

fn with_lessons(server: &Server) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    Application::create(&mut session).add_uploads(&mut session, 1, 3);
    (database, session)
}

#[test]
fn batch_outside_its_bounds() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        let before = contents(&mut session);
        for batch in ["0", "-1", "NULL", "100001", "-2147483648", "2147483647"] {
            for function in ["backfill_lesson_assets", "backfill_asset_keys"] {
                for execute in ["true", "false"] {
                    session.fails_with_hint("22023", &format!("SELECT * FROM {function}({batch}, {execute})"));
                }
            }
        }
        assert_eq!(before, contents(&mut session));
        for batch in ["1", "100000"] {
            session.run(&format!(
                "SELECT * FROM backfill_lesson_assets({batch}); SELECT * FROM backfill_asset_keys({batch})"
            ));
        }
    });
}

#[test]
fn null_for_a_boolean() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        for call in [
            "backfill_lesson_assets(execute => NULL)",
            "backfill_asset_keys(execute => NULL)",
            "backfill_asset_keys(refresh => NULL)",
            "prepare_asset_tables(NULL)",
            "dedupe_asset_usages(NULL)",
        ] {
            session.fails("22023", &format!("SELECT * FROM {call}"));
        }
    });
}

#[test]
fn filters_that_do_not_parse() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        for filter in [
            "after => 'x'",
            "after => ''",
            "organization_id => 'x'",
            "organization_id => ''",
            "after => '1; DROP TABLE lesson'",
            "max_lessons => -1",
        ] {
            session.fails("22023", &format!("SELECT * FROM backfill_lesson_assets({filter})"));
            session.fails(
                "22023",
                &format!("SELECT * FROM backfill_lesson_assets(execute => true, {filter})"),
            );
            session.fails("22023", &format!("SELECT * FROM explain_lesson_assets({filter})"));
        }
        session.fails("22023", "SELECT * FROM verify_lesson_assets('x')");
        for (filter, scanned) in [
            ("max_lessons => 0", 0),
            ("max_lessons => 9223372036854775807", 3),
            ("max_lessons => NULL", 3),
            ("after => NULL, organization_id => NULL", 3),
            ("after => 'ffffffff-ffff-ffff-ffff-ffffffffffff'", 0),
            ("after => '{10000000000040008000000000000002}'", 1),
            ("organization_id => '0A000000-0000-4000-8000-000000000001'", 3),
            ("organization_id => '0a000000-0000-4000-8000-00000000ffff'", 0),
        ] {
            session
                .counters(&format!("SELECT * FROM backfill_lesson_assets({filter})"))
                .expect(&[("lessons_scanned", scanned), ("batches", scanned.min(1))]);
        }
    });
}

#[test]
fn filters_that_do_not_parse_as_numbers() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        Application {
            lesson_id: "bigint".into(),
            organization_id: "bigint".into(),
        }
        .create_lesson_side(&mut session);
        session.run("SELECT * FROM create_asset_tables()");
        for value in ["x", "", "9223372036854775808", "1.5", "NaN"] {
            session.fails(
                "22023",
                &format!("SELECT * FROM backfill_lesson_assets(after => '{value}')"),
            );
            session.fails(
                "22023",
                &format!("SELECT * FROM backfill_lesson_assets(organization_id => '{value}')"),
            );
        }
    });
}

#[test]
fn settled_lessons_are_not_there_yet() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.fails("0A000", "SELECT * FROM backfill_lesson_assets(skip_settled => true)");
        session.fails(
            "0A000",
            "SELECT * FROM backfill_lesson_assets(execute => true, skip_settled => true)",
        );
        let row = session.rows("SELECT run_id, lessons_settled::text FROM backfill_lesson_assets(execute => true)");
        assert_eq!(row, [[None, Some("0".to_owned())]]);
    });
}

#[test]
fn no_tables_is_one_error_that_names_all_that_is_missing() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let error = session.fails_with_hint("42P01", "SELECT * FROM backfill_lesson_assets(execute => true)");
        for table in ["lesson", "course", "group", "assets", "asset_usages"] {
            assert!(words(&error).contains(table), "names {table}: {}", describe(&error));
        }
        assert!(
            error.hint().is_some_and(|hint| hint.contains("create_asset_tables()")),
            "{}",
            describe(&error)
        );
        let error = session.fails_with_hint("42P01", "SELECT * FROM backfill_lesson_assets()");
        for table in ["lesson", "course", "group"] {
            assert!(words(&error).contains(table), "names {table}: {}", describe(&error));
        }
        // half of it is there
        session.run("CREATE TABLE lesson (id uuid PRIMARY KEY, course_id int, videos jsonb, documents jsonb)");
        let error = session.fails_with_hint("42P01", "SELECT * FROM backfill_lesson_assets(execute => true)");
        assert!(
            words(&error).contains("course") && words(&error).contains("asset_usages"),
            "{}",
            describe(&error)
        );
        session.fails("42P01", "SELECT * FROM verify_lesson_assets()");
        session.fails("42P01", "SELECT * FROM explain_lesson_assets()");
        session.fails_with_hint("42P01", "SELECT * FROM backfill_asset_keys(execute => true)");
        session.fails("42P01", "SELECT * FROM dedupe_asset_usages(true)");
    });
}

#[test]
fn missing_columns_are_named_all_at_once() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.run("ALTER TABLE lesson DROP documents; ALTER TABLE course DROP group_id; ALTER TABLE assets DROP byte_size, DROP title; ALTER TABLE asset_usages DROP slot_key");
        let error = session.fails_with_hint("42703", "SELECT * FROM backfill_lesson_assets(execute => true)");
        for column in ["documents", "group_id", "byte_size", "title", "slot_key"] {
            assert!(words(&error).contains(column), "names {column}: {}", describe(&error));
        }
        let error = session.fails("42703", "SELECT * FROM backfill_lesson_assets()");
        assert!(
            words(&error).contains("documents") && words(&error).contains("group_id"),
            "{}",
            describe(&error)
        );
    });
}

#[test]
fn missing_unique_constraints_refuse_an_execute_only() {
    each_server(|server| {
        for (damage, table) in [
            ("ALTER TABLE assets DROP CONSTRAINT", "assets"),
            ("ALTER TABLE asset_usages DROP CONSTRAINT", "asset_usages"),
        ] {
            let (_database, mut session) = with_lessons(server);
            let before = contents(&mut session);
            // whether it is a constraint or an index is the product's choice
            session.run(&format!(
                "DO $do$ DECLARE name text; BEGIN
                   FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'u' LOOP EXECUTE format('{damage} %I', name); END LOOP;
                   FOR name IN SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{table}'::regclass AND indisunique AND NOT indisprimary LOOP EXECUTE 'DROP INDEX ' || name; END LOOP;
                 END $do$"
            ));
            session
                .counters("SELECT * FROM backfill_lesson_assets()")
                .expect(&[("assets_created", 3)]);
            let error = session.fails_with_hint("55000", "SELECT * FROM backfill_lesson_assets(execute => true)");
            assert!(words(&error).contains(table), "{}", describe(&error));
            assert_eq!(before, contents(&mut session));
            let reported = session.text("SELECT string_agg(c::text, E'\\n') FROM check_asset_tables() c");
            assert!(reported.contains(table) && reported.contains("55000"), "{reported}");
            session.run("SELECT * FROM prepare_asset_tables(true)");
            session
                .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
                .expect(&[("assets_created", 3)]);
        }
    });
}

#[test]
fn unique_indexes_that_on_conflict_cannot_use_do_not_count() {
    each_server(|server| {
        for index in [
            "ALTER TABLE assets ADD UNIQUE (organization_id, canonical_key) DEFERRABLE",
            "CREATE UNIQUE INDEX ON assets (organization_id, canonical_key) WHERE status = 'active'",
            "CREATE UNIQUE INDEX ON assets (organization_id, lower(canonical_key))",
        ] {
            let (_database, mut session) = with_lessons(server);
            session.run(
                "DO $do$ DECLARE name text; BEGIN
                   FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'assets'::regclass AND contype = 'u' LOOP EXECUTE format('ALTER TABLE assets DROP CONSTRAINT %I', name); END LOOP;
                   FOR name IN SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'assets'::regclass AND indisunique AND NOT indisprimary LOOP EXECUTE 'DROP INDEX ' || name; END LOOP;
                 END $do$",
            );
            session.run(index);
            session.fails_with_hint("55000", "SELECT * FROM backfill_lesson_assets(execute => true)");
            assert!(
                session.number("SELECT count(*) FROM check_asset_tables()") > 0,
                "{index}"
            );
        }
    });
}

#[test]
fn a_lesson_table_without_primary_key() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.run("ALTER TABLE lesson DROP CONSTRAINT lesson_pkey");
        for execute in [true, false] {
            let error = session.fails_with_hint(
                "55000",
                &format!("SELECT * FROM backfill_lesson_assets(execute => {execute})"),
            );
            assert!(words(&error).contains("primary key"), "{}", describe(&error));
        }
        // a key of two columns is none for us
        session.run("ALTER TABLE lesson ADD PRIMARY KEY (id, course_id)");
        session.fails("55000", "SELECT * FROM backfill_lesson_assets()");
    });
}

#[test]
fn columns_of_the_wrong_type() {
    each_server(|server| {
        for change in [
            "ALTER TABLE lesson ALTER videos TYPE text",
            "ALTER TABLE lesson ALTER videos TYPE json",
            "ALTER TABLE course ALTER group_id TYPE text",
            "ALTER TABLE lesson ALTER course_id TYPE text",
            "ALTER TABLE assets ALTER metadata TYPE text",
            "ALTER TABLE assets ALTER byte_size TYPE text",
            "ALTER TABLE assets ALTER byte_size TYPE int",
            "ALTER TABLE assets ALTER duration_seconds TYPE numeric",
            "ALTER TABLE assets ALTER organization_id TYPE text",
            "ALTER TABLE asset_usages ALTER organization_id TYPE text",
            "ALTER TABLE asset_usages ALTER position TYPE text",
            "ALTER TABLE asset_usages ALTER position TYPE bigint",
            "ALTER TABLE asset_usages ALTER target_id TYPE varchar(10)",
            "ALTER TABLE asset_usages ALTER target_id TYPE uuid USING target_id::uuid",
        ] {
            let (_database, mut session) = with_lessons(server);
            if let Err(error) = session.try_rows(change) {
                panic!("{change}: {}", describe(&error));
            }
            for execute in [false, true] {
                // some of these work, some are refused; none is an internal error, and none writes half of it
                let before = contents(&mut session);
                match session.try_counters(&format!("SELECT * FROM backfill_lesson_assets(execute => {execute})")) {
                    Ok(counters) => counters.expect_sums(),
                    Err(error) => {
                        assert!(!error.code().code().starts_with("XX"), "{change}: {}", describe(&error));
                        assert_eq!(before, contents(&mut session), "{change}");
                    }
                }
            }
        }
    });
}

#[test]
fn other_slot_types() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        for slot_type in ["'lesson_image'", "''", "'LESSON_VIDEO'", "' lesson_video'", "NULL"] {
            session.fails(
                "22023",
                &format!("SELECT * FROM normalize_lesson_media({slot_type}, '{{}}')"),
            );
            session.fails(
                "22023",
                &format!("SELECT * FROM normalize_lesson_media({slot_type}, NULL)"),
            );
        }
    });
}

#[test]
fn injection_through_arguments_does_nothing() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        let before = contents(&mut session);
        for text in [
            "'; DROP TABLE lesson; --",
            "$1",
            "'' OR true",
            "\\'; DROP TABLE lesson; --",
            "0a000000-0000-4000-8000-000000000001' OR '1'='1",
        ] {
            let value = media_assets_tests::literal(text);
            session.fails(
                "22023",
                &format!("SELECT * FROM backfill_lesson_assets(execute => true, organization_id => {value})"),
            );
            session.fails(
                "22023",
                &format!("SELECT * FROM backfill_lesson_assets(execute => true, after => {value})"),
            );
            session.fails("22023", &format!("SELECT * FROM explain_lesson_assets({value})"));
            session.fails("22023", &format!("SELECT * FROM verify_lesson_assets({value})"));
            session.fails(
                "22023",
                &format!("SELECT * FROM normalize_lesson_media({value}, '{{}}')"),
            );
        }
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn empty_tables_are_no_error() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        Application::create(&mut session);
        for execute in [false, true] {
            let counters = session.counters(&format!("SELECT * FROM backfill_lesson_assets(execute => {execute})"));
            assert!(
                counters
                    .0
                    .iter()
                    .all(|(name, value)| name == "run_id" || value.is_none_or(|v| v == 0)),
                "{counters:?}"
            );
        }
        assert_eq!(session.number("SELECT count(*) FROM explain_lesson_assets()"), 0);
        assert_eq!(session.number("SELECT count(*) FROM verify_lesson_assets()"), 0);
    });
}

#[test]
fn progress_lines_can_be_silenced() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.run("ANALYZE lesson");
        session.take_notices();
        session.run("SELECT * FROM backfill_lesson_assets(1)");
        let lines = session.take_notices();
        assert!(lines.len() >= 2, "the first and the last batch at least: {lines:?}");
        assert!(
            lines.iter().any(|line| line.message().contains("about")),
            "a total from reltuples is marked: {lines:?}"
        );
        session.run("SET media_assets.progress = off; SELECT * FROM backfill_lesson_assets(1)");
        assert!(session.take_notices().is_empty());
    });
}

#[test]
fn the_key_set_of_a_dry_run_is_bounded() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.run(
            "INSERT INTO lesson (id, course_id, videos)
             SELECT gen_random_uuid(), 1, (SELECT jsonb_agg(jsonb_build_object('key', 'k' || n || '-' || i)) FROM generate_series(1, 40) i) FROM generate_series(1, 2000) n;
             SET media_assets.dry_run_memory = '1MB'",
        );
        let error = session.fails_with_hint("53400", "SELECT * FROM backfill_lesson_assets()");
        assert!(words(&error).contains("dry_run_memory"), "{}", describe(&error));
        session.run("RESET media_assets.dry_run_memory; SELECT * FROM backfill_lesson_assets()");
    });
}
