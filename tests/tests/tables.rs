//! The tables: made where there are none, brought up to it where there are, keyed, without duplicates.

use media_assets_tests::application::{assert_verified, contents, insert_asset};
use media_assets_tests::{describe, each_server, words, Application, Session};

/// The assets tables of an application that has never heard of us: the seed's common fields, columns, constraints
/// and a trigger of its own.
fn create_foreign_tables(session: &mut Session) -> Application {
    let application = Application::default();
    application.create_lesson_side(session);
    session.run(
        "CREATE TABLE assets (
             id uuid PRIMARY KEY DEFAULT gen_random_uuid(), organization_id uuid NOT NULL, kind text NOT NULL, provider text NOT NULL,
             storage_provider text NOT NULL, storage_key text, source_url text, mime_type text, byte_size bigint CHECK (byte_size >= 0),
             title text, description text, thumbnail_url text, duration_seconds integer, aspect_ratio text, is_external boolean NOT NULL DEFAULT false,
             status text NOT NULL DEFAULT 'active', metadata jsonb NOT NULL DEFAULT '{}', uploaded_by text DEFAULT 'somebody',
             created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
         CREATE INDEX assets_by_key ON assets (storage_key);
         CREATE TABLE asset_usages (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, organization_id uuid NOT NULL, asset_id uuid NOT NULL REFERENCES assets,
             target_type text NOT NULL, target_id text NOT NULL, slot_type text NOT NULL, slot_key text, position integer NOT NULL, note text);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END$$;
         CREATE TRIGGER touch BEFORE UPDATE ON assets FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    application
}

/// Five assets: two equal (2 is older), one alone, one without fields to key, one of the other organization.
fn add_foreign_rows(session: &mut Session, application: &Application) {
    for (number, organization, key) in [(1, 1, "twin"), (2, 1, "twin"), (3, 1, "alone"), (5, 2, "twin")] {
        application.add_asset(session, number, organization, key);
    }
    session.run(&format!(
        "INSERT INTO assets (id, organization_id, kind, provider, storage_provider) VALUES ('{}', '{}', 'video', 'upload', 's3');
         UPDATE assets SET created_at = '2020-01-01' WHERE id = '{}'",
        application.asset(4),
        application.organization(1),
        application.asset(2)
    ));
}

fn schema(session: &mut Session) -> Vec<media_assets_tests::Row> {
    session.rows(
        "SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod) FROM pg_attribute
         WHERE attrelid IN ('assets'::regclass, 'asset_usages'::regclass) AND attnum > 0
         UNION ALL SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid), '' FROM pg_index WHERE indrelid IN ('assets'::regclass, 'asset_usages'::regclass)
         UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid IN ('assets'::regclass, 'asset_usages'::regclass)
         UNION ALL SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid), '' FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN ('assets'::regclass, 'asset_usages'::regclass)
         ORDER BY 1, 2, 3, 4",
    )
}

#[test]
fn create_makes_what_is_missing_and_alters_nothing_that_is_there() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("CREATE SCHEMA app; SET search_path = app, public");
        let made = session.rows("SELECT c::text FROM create_asset_tables() c");
        assert!(!made.is_empty(), "create tells what it did");
        let there = session.rows(
            "SELECT schemaname, tablename FROM pg_tables WHERE tablename IN ('assets', 'asset_usages') ORDER BY 2",
        );
        let app = || Some("app".to_owned());
        assert_eq!(
            there,
            [[app(), Some("asset_usages".into())], [app(), Some("assets".into())]],
            "in the current schema"
        );
        assert_eq!(
            session.text("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'assets'::regclass AND attname = 'organization_id'"),
            "uuid"
        );
        let before = schema(&mut session);
        session.run("SELECT * FROM create_asset_tables()");
        assert_eq!(before, schema(&mut session), "repeatable");
        // somebody else's tables are left as they are
        session.run("DROP TABLE app.asset_usages, app.assets");
        create_foreign_tables(&mut session);
        let before = schema(&mut session);
        session.run("SELECT * FROM create_asset_tables()");
        assert_eq!(before, schema(&mut session));
    });
}

#[test]
fn created_tables_have_their_safety_nets() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        assert!(session.rows("SELECT c::text FROM check_asset_tables() c").is_empty());
        application.add_asset(&mut session, 1, 1, "k");
        let (organization, asset) = (application.organization(1), application.asset(1));
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        application.add_asset(&mut session, 2, 1, "other");
        let twin = application.asset(2);
        session.fails(
            "23505",
            &format!("UPDATE assets SET canonical_key = 'upload:k' WHERE id = '{twin}'"),
        );
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let usage = format!(
            "INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, position)
             VALUES ('{organization}', '{asset}', 'lesson', 'x', 'lesson_video', NULL, 0)"
        );
        session.run(&usage);
        session.fails("23505", &usage);
        // ON DELETE RESTRICT has an SQLSTATE of its own from PostgreSQL 18 on
        let restricted = if server.major < 18 { "23503" } else { "23001" };
        session.fails(restricted, &format!("DELETE FROM assets WHERE id = '{asset}'"));
        session.fails("23503", &usage.replace(&asset, &application.asset(99)));
    });
}

#[test]
fn key_triggers_follow_the_applications_writes() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let organization = application.organization(1);
        let key = |session: &mut Session, number: u32| {
            session.value(&format!(
                "SELECT canonical_key FROM assets WHERE id = '{}'",
                application.asset(number)
            ))
        };
        let upload = |key: &str| Some(format!("upload:{key}"));
        application.add_asset(&mut session, 1, 1, "a");
        assert_eq!(key(&mut session, 1), upload("a"));
        // a twin stays without key, its insert goes through
        application.add_asset(&mut session, 2, 1, "a");
        assert_eq!(key(&mut session, 2), None);
        let update =
            |set: &str, number: u32| format!("UPDATE assets SET {set} WHERE id = '{}'", application.asset(number));
        session.run(&update("storage_key = 'b'", 2));
        assert_eq!(key(&mut session, 2), upload("b"));
        // a collision takes the key away, never leaves the old, wrong one
        session.run(&update("storage_key = 'a'", 2));
        assert_eq!(key(&mut session, 2), None);
        session.run(&update("storage_key = NULL", 1));
        assert_eq!(key(&mut session, 1), None);
        session.run(&update(
            "provider = 'external_url', source_url = 'HTTPS://X.test/a.webm?X-Amz-Signature=1'",
            1,
        ));
        assert_eq!(
            key(&mut session, 1).as_deref(),
            Some("external_url:video:https://x.test/a.webm")
        );
        session.run(&update("kind = 'document'", 1));
        assert_eq!(
            key(&mut session, 1).as_deref(),
            Some("external_url:document:https://x.test/a.webm")
        );
        // equal rows in one statement: one of them gets the key, the others go on without it
        session.run(&format!(
            "INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
             SELECT gen_random_uuid(), '{organization}', 'video', 'upload', 's3', 'set ' || n % 3, false, 'active', '{{}}' FROM generate_series(1, 9) n"
        ));
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE storage_key LIKE 'set%'"),
            9
        );
        assert_eq!(
            session.number("SELECT count(canonical_key) FROM assets WHERE storage_key LIKE 'set%'"),
            3
        );
        // a key that fits is left, one that does not is put right
        let third = insert_asset(&application.asset(3), &organization, "c")
            .replace("storage_key,", "canonical_key, storage_key,")
            .replace("'c',", "'upload:wrong', 'c',");
        session.run(&third);
        assert_eq!(key(&mut session, 3), upload("c"));
        // COPY is an insert as well
        session.run(&format!("CREATE TEMP TABLE copied AS SELECT * FROM assets WHERE id = '{}'; UPDATE copied SET id = '{}', storage_key = 'copied', canonical_key = NULL; INSERT INTO assets SELECT * FROM copied", application.asset(3), application.asset(4)));
        assert_eq!(key(&mut session, 4), upload("copied"));
        // an application's ON CONFLICT and its swaps in one statement
        session.run(&format!(
            "{} ON CONFLICT (id) DO UPDATE SET storage_key = 'upserted'",
            insert_asset(&application.asset(3), &organization, "x")
        ));
        assert_eq!(key(&mut session, 3), upload("upserted"));
        session.run(&format!(
            "UPDATE assets SET storage_key = CASE storage_key WHEN 'upserted' THEN 'copied' ELSE 'upserted' END WHERE id IN ('{}', '{}')",
            application.asset(3),
            application.asset(4)
        ));
        assert_eq!(session.number("SELECT count(*) FROM assets WHERE canonical_key IS NOT NULL AND canonical_key <> 'upload:' || storage_key AND provider = 'upload'"), 0);
    });
}

#[test]
fn key_triggers_never_fail_the_application() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let organization = application.organization(1);
        // a constraint of the user's on our column: the row goes in without a key
        session.run("ALTER TABLE assets ADD CHECK (canonical_key NOT LIKE '%forbidden%')");
        application.add_asset(&mut session, 1, 1, "forbidden");
        session.run(&format!(
            "INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
             SELECT gen_random_uuid(), '{organization}', 'video', 'upload', 's3', CASE n WHEN 3 THEN 'also forbidden' ELSE 'k' || n END, false, 'active', '{{}}' FROM generate_series(1, 5) n"
        ));
        assert_eq!(
            session.number("SELECT count(canonical_key) FROM assets"),
            4,
            "row by row where the set fails"
        );
        session.run(&format!("UPDATE assets SET storage_key = 'forbidden too' WHERE storage_key = 'k1' AND organization_id = '{organization}'"));
        assert_eq!(
            session.value("SELECT canonical_key FROM assets WHERE storage_key = 'forbidden too'"),
            None
        );
        // a trigger of the user's that refuses our update
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'assets are never updated'; END$$;
             CREATE TRIGGER refuse BEFORE UPDATE ON assets FOR EACH ROW EXECUTE FUNCTION refuse()",
        );
        application.add_asset(&mut session, 2, 1, "refused");
        session.run("DROP TRIGGER refuse ON assets");
        // fields of any length and content
        session.run(&format!(
            "INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, source_url, is_external, status, metadata)
             SELECT gen_random_uuid(), '{organization}', kind, provider, 's3', repeat(key, 1000000), repeat(key, 100000), false, 'active', '{{}}'
             FROM unnest(ARRAY['', ' ', 'x', 'é', '%', '/', '<iframe ']) key, unnest(ARRAY['upload', '', 'youtube', 'google_drive', 's3', E'\\u0001']) provider,
                  unnest(ARRAY['video', '', 'no kind']) kind"
        ));
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE octet_length(canonical_key) > 1000"),
            0
        );
        // a savepoint of the application's, rolled back, and an error of its own
        session.run(&format!(
            "BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; {}; COMMIT",
            insert_asset(&application.asset(7), &organization, "s"),
            insert_asset(&application.asset(8), &organization, "s")
        ));
        assert_eq!(
            session.text(&format!(
                "SELECT canonical_key FROM assets WHERE id = '{}'",
                application.asset(8)
            )),
            "upload:s"
        );
        session.fails("23505", &insert_asset(&application.asset(8), &organization, "again"));
    });
}

#[test]
fn prepare_prints_in_its_dry_run_what_it_does_when_executed() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = create_foreign_tables(&mut session);
        add_foreign_rows(&mut session, &application);
        application.add_uploads(&mut session, 1, 3);
        application.add_lesson(&mut session, 4, r#"[{"key": "twin"}, {"key": "alone"}]"#);
        let (before, rows) = (schema(&mut session), contents(&mut session));

        session.run("BEGIN READ ONLY");
        let printed = session.text("SELECT string_agg(p::text, E'\\n') FROM prepare_asset_tables() p");
        session.run("COMMIT");
        assert!(
            printed.contains("canonical_key") && printed.contains("asset_usages"),
            "{printed}"
        );
        assert_eq!(before, schema(&mut session), "a dry run changes nothing");
        let reported = session.text("SELECT string_agg(c::text, E'\\n') FROM check_asset_tables() c");
        assert!(reported.contains("canonical_key"), "{reported}");
        let dry = session.counters("SELECT * FROM backfill_lesson_assets()");

        session.run("SELECT * FROM prepare_asset_tables(true)");
        assert!(session.rows("SELECT c::text FROM check_asset_tables() c").is_empty());
        let prepared = schema(&mut session);
        session.run("SELECT * FROM prepare_asset_tables(true)");
        assert_eq!(prepared, schema(&mut session), "repeatable");
        // the application's own rows, columns, indexes and triggers are as they were
        for row in &before {
            assert!(prepared.contains(row), "lost {row:?}");
        }
        let kept = session.rows("SELECT 'assets', (to_jsonb(a) - 'canonical_key')::text FROM assets a ORDER BY 2");
        assert_eq!(
            kept.len(),
            rows.iter().filter(|row| row[0].as_deref() == Some("assets")).count()
        );
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE uploaded_by = 'somebody'"),
            5
        );

        assert_eq!(
            session.counters("SELECT * FROM backfill_lesson_assets(execute => true)"),
            dry
        );
        dry.expect(&[("assets_created", 3), ("assets_reused", 2)]);
        let twins = session.rows("SELECT id::text FROM assets WHERE canonical_key = 'upload:twin' ORDER BY created_at");
        assert_eq!(twins.len(), 2, "one for each organization");
        assert_eq!(
            twins[0][0],
            Some(application.asset(2)),
            "the oldest of several equal rows gets the key"
        );
        assert_verified(&mut session);
    });
}

#[test]
fn the_ddl_that_prepare_prints_can_be_run_by_hand() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("CREATE SCHEMA \"Odd \"\"App\"; SET search_path = \"Odd \"\"App\", public");
        create_foreign_tables(&mut session);
        let columns = session.rows("SELECT proargnames::text FROM pg_proc WHERE proname = 'prepare_asset_tables'");
        let name = if columns[0][0].as_deref().is_some_and(|names| names.contains("ddl")) {
            "ddl"
        } else {
            "action"
        };
        let statements = session.rows(&format!(
            "SELECT {name} FROM prepare_asset_tables() WHERE {name} IS NOT NULL"
        ));
        assert!(!statements.is_empty());
        for statement in statements.into_iter().flatten().flatten() {
            session.run(&statement);
        }
        let left = session.rows("SELECT c::text FROM check_asset_tables() c");
        assert!(left.is_empty(), "{left:?}");
    });
}

/// Three usages that are one, and one that differs.
fn add_duplicate_usages(session: &mut Session, application: &Application) {
    for position in [0, 0, 0, 1] {
        session.run(&format!(
            "INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, position)
             VALUES ('{}', '{}', 'lesson', '{}', 'lesson_video', NULL, {position})",
            application.organization(1),
            application.asset(3),
            application.lesson(1)
        ));
    }
}

#[test]
fn duplicate_usages_make_prepare_refuse_until_they_are_gone() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = create_foreign_tables(&mut session);
        add_foreign_rows(&mut session, &application);
        add_duplicate_usages(&mut session, &application);
        let (before, rows) = (schema(&mut session), contents(&mut session));
        let error = session.fails_with_hint("55000", "SELECT * FROM prepare_asset_tables(true)");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("dedupe_asset_usages(")),
            "{}",
            describe(&error)
        );
        assert!(
            words(&error).contains(&application.asset(3)),
            "their list: {}",
            describe(&error)
        );
        assert_eq!(before, schema(&mut session), "nothing half prepared");

        session.run(
            "BEGIN READ ONLY; SELECT * FROM dedupe_asset_usages(); SELECT * FROM dedupe_asset_usages(false); COMMIT",
        );
        assert_eq!(rows, contents(&mut session), "dry by default");
        let oldest = session.number("SELECT min(id) FROM asset_usages");
        session.run("SELECT * FROM dedupe_asset_usages(true)");
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 2);
        assert_eq!(
            session.number("SELECT id FROM asset_usages WHERE position = 0"),
            oldest,
            "the first of them stays"
        );
        session.run("SELECT * FROM dedupe_asset_usages(true)");
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 2);
        session.run("SELECT * FROM prepare_asset_tables(true)");
        assert!(session.rows("SELECT c::text FROM check_asset_tables() c").is_empty());
    });
}

#[test]
fn backfill_asset_keys_keys_the_oldest_and_leaves_the_others() {
    each_server(|server| {
        for batch in [1, 2, 500] {
            let database = server.database();
            let mut session = database.session();
            let application = create_foreign_tables(&mut session);
            add_foreign_rows(&mut session, &application);
            session.run("SELECT * FROM prepare_asset_tables(true); ALTER TABLE assets DISABLE TRIGGER USER; UPDATE assets SET canonical_key = NULL; ALTER TABLE assets ENABLE TRIGGER USER");
            let dry = session.counters(&format!("SELECT * FROM backfill_asset_keys({batch})"));
            let names: Vec<_> = dry.0.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                names,
                [
                    "rows_scanned",
                    "keyed",
                    "duplicates",
                    "unkeyable",
                    "errors",
                    "batches",
                    "run_id"
                ]
            );
            dry.expect(&[
                ("rows_scanned", 5),
                ("keyed", 3),
                ("duplicates", 1),
                ("unkeyable", 1),
                ("errors", 0),
            ]);
            assert_eq!(session.number("SELECT count(canonical_key) FROM assets"), 0);
            assert_eq!(
                session.counters(&format!("SELECT * FROM backfill_asset_keys({batch}, true)")),
                dry,
                "batch {batch}"
            );
            let keyed =
                session.rows("SELECT id::text, canonical_key FROM assets WHERE canonical_key IS NOT NULL ORDER BY id");
            let expected = [(2, "upload:twin"), (3, "upload:alone"), (5, "upload:twin")]
                .map(|(number, key)| vec![Some(application.asset(number)), Some(key.to_owned())]);
            assert_eq!(keyed, expected, "batch {batch}");
            let again = session.counters(&format!("SELECT * FROM backfill_asset_keys({batch}, true)"));
            again.expect(&[("keyed", 0), ("duplicates", 1), ("unkeyable", 1), ("errors", 0)]);
        }
    });
}

#[test]
fn refresh_repairs_keys_that_no_longer_fit() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        for (number, key) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
            application.add_asset(&mut session, number, 1, key);
        }
        // 1 and 2 hold each other's key, 3 holds one that is nobody's; 4 is a twin of 1
        session.run(&format!(
            "ALTER TABLE assets DISABLE TRIGGER USER;
             UPDATE assets SET canonical_key = NULL;
             UPDATE assets SET canonical_key = CASE id WHEN '{}' THEN 'upload:b' WHEN '{}' THEN 'upload:a' WHEN '{}' THEN 'upload:nobody' END;
             ALTER TABLE assets ENABLE TRIGGER USER",
            application.asset(1),
            application.asset(2),
            application.asset(3)
        ));
        let errors =
            session.number("SELECT count(*) FROM verify_lesson_assets() WHERE severity IN ('error', 'warning')");
        assert!(errors >= 3, "a key that is not that of its fields is found");
        session.run("SELECT * FROM backfill_asset_keys(execute => true)");
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key = 'upload:' || storage_key"),
            0,
            "without refresh they stay"
        );
        let dry = session.counters("SELECT * FROM backfill_asset_keys(refresh => true)");
        let executed = session.counters("SELECT * FROM backfill_asset_keys(execute => true, refresh => true)");
        assert_eq!(dry, executed);
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key = 'upload:' || storage_key"),
            3
        );
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key IS NULL"),
            1
        );
        let again = session.counters("SELECT * FROM backfill_asset_keys(execute => true, refresh => true)");
        again.expect(&[("keyed", 0), ("duplicates", 1)]);
        assert_verified(&mut session);
    });
}

#[test]
fn check_reports_what_would_be_in_the_way() {
    each_server(|server| {
        for (damage, word) in [
            ("ALTER TABLE assets ADD owner_name text NOT NULL", "owner_name"),
            ("ALTER TABLE asset_usages ADD owner_name text NOT NULL", "owner_name"),
            (
                "ALTER TABLE assets ALTER canonical_key TYPE varchar(100)",
                "canonical_key",
            ),
            (
                "ALTER TABLE assets ALTER storage_provider TYPE varchar(4)",
                "storage_provider",
            ),
            ("ALTER TABLE asset_usages ALTER target_id TYPE varchar(10)", "target_id"),
            ("ALTER TABLE assets DROP mime_type", "mime_type"),
            ("ALTER TABLE asset_usages DROP slot_key", "slot_key"),
        ] {
            let database = server.database();
            let mut session = database.session();
            Application::create(&mut session);
            session.run(damage);
            let reported = session.rows("SELECT relation::text, problem, sqlstate, ddl FROM check_asset_tables()");
            assert!(!reported.is_empty(), "{damage}");
            let text = format!("{reported:?}");
            assert!(text.contains(word), "{damage}: {text}");
        }
        // without any table: every one of them is reported, none raised
        let database = server.database();
        let mut session = database.session();
        let text = format!(
            "{:?}",
            session.rows("SELECT relation::text, problem, sqlstate, ddl FROM check_asset_tables()")
        );
        assert!(
            text.contains("asset_usages") && text.contains("42P01") && text.contains("create_asset_tables"),
            "{text}"
        );
    });
}

#[test]
fn keyless_rows_of_the_scope_are_keyed_first() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        application.add_asset(&mut session, 1, 1, "a");
        application.add_asset(&mut session, 2, 2, "b");
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        application.add_lesson(&mut session, 1, r#"[{"key": "a"}]"#);
        application.add_lesson_of(&mut session, 2, 2, r#"[{"key": "b"}]"#, "[]");
        let organization = application.organization(1);
        session
            .counters(&format!(
                "SELECT * FROM backfill_lesson_assets(execute => true, organization_id => '{organization}')"
            ))
            .expect(&[("assets_reused", 1), ("assets_created", 0)]);
        let keys = session.rows("SELECT canonical_key FROM assets ORDER BY id");
        assert_eq!(
            keys,
            [[Some("upload:a".to_owned())], [None]],
            "only those of the organization asked for"
        );
        session
            .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
            .expect(&[("assets_reused", 2)]);
        assert_eq!(session.number("SELECT count(canonical_key) FROM assets"), 2);
    });
}

#[test]
fn a_keyless_twin_is_not_reused_by_its_id() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_asset(&mut session, 1, 1, "a");
        application.add_asset(&mut session, 2, 1, "a");
        application.add_lesson(
            &mut session,
            1,
            &format!(r#"[{{"key": "a", "assetId": "{}"}}]"#, application.asset(2)),
        );
        session
            .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
            .expect(&[("assets_reused", 1), ("lesson_items_patched_with_asset_id", 1)]);
        assert_eq!(
            session.text("SELECT videos #>> '{0,assetId}' FROM lesson"),
            application.asset(1)
        );
    });
}

#[test]
fn reused_rows_are_never_modified() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_asset(&mut session, 1, 1, "a");
        session.run("UPDATE assets SET status = 'archived', title = 'theirs'");
        application.add_lesson(&mut session, 1, r#"[{"key": "a", "fileName": "ours.mp4", "size": 7}]"#);
        let before = session.rows("SELECT a::text, xmin::text, ctid::text FROM assets a");
        session
            .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
            .expect(&[("assets_reused", 1), ("assets_missing_byte_size", 1)]);
        assert_eq!(
            before,
            session.rows("SELECT a::text, xmin::text, ctid::text FROM assets a")
        );
    });
}

#[test]
fn rows_without_a_creation_time_are_keyed_last() {
    each_server(|server| {
        for batch in [1, 2, 3, 500] {
            let database = server.database();
            let mut session = database.session();
            let application = Application::create(&mut session);
            session.run("ALTER TABLE assets ALTER created_at DROP NOT NULL, DISABLE TRIGGER USER");
            for (number, key) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "d"), (6, "d")] {
                application.add_asset(&mut session, number, 1, key);
            }
            session.run(&format!(
                "UPDATE assets SET created_at = CASE WHEN id <= '{}' THEN timestamptz '2024-01-01' - interval '1 day' * right(id::text, 1)::int END;
                 ALTER TABLE assets ENABLE TRIGGER USER",
                application.asset(3)
            ));
            let dry = session.counters(&format!("SELECT * FROM backfill_asset_keys({batch})"));
            dry.expect(&[("rows_scanned", 6), ("keyed", 4), ("duplicates", 2)]);
            assert_eq!(
                session.counters(&format!("SELECT * FROM backfill_asset_keys({batch}, true)")),
                dry,
                "batch {batch}"
            );
            let keyless = session.rows("SELECT id::text FROM assets WHERE canonical_key IS NULL ORDER BY id");
            assert_eq!(keyless, [[Some(application.asset(4))], [Some(application.asset(6))]]);
        }
    });
}
