//! Schemas as applications have them: id types, views, names that need quoting, search paths, columns of their own.

use media_assets_tests::application::{assert_items_are_settled, assert_verified, insert_asset};
use media_assets_tests::{each_server, identifier, literal, words, Application, Session};

const DRY: &str = "SELECT * FROM backfill_lesson_assets()";
const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

/// Dry run, execute, second run, in the session's search path.
fn run_whole(session: &mut Session) {
    let dry = session.counters(DRY);
    assert!(dry.get("assets_created") > 0);
    assert_eq!(session.counters(EXECUTE), dry);
    assert_items_are_settled(session);
    assert_verified(session);
    session.counters(EXECUTE).expect_no_work();
}

#[test]
fn ids_of_uuid_text_and_bigint() {
    each_server(|server| {
        for lesson_id in ["uuid", "text", "bigint"] {
            for organization_id in ["uuid", "text", "bigint"] {
                let database = server.database();
                let mut session = database.session();
                let application = Application {
                    lesson_id: lesson_id.into(),
                    organization_id: organization_id.into(),
                };
                application.create_lesson_side(&mut session);
                session.run("SELECT * FROM create_asset_tables()");
                let made = session.text("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'assets'::regclass AND attname = 'organization_id'");
                assert_eq!(
                    made, organization_id,
                    "organization_id takes the type of \"group\".organization_id"
                );
                application.add_uploads(&mut session, 1, 12);
                application.add_lesson_of(&mut session, 13, 2, r#"[{"type": "upload", "key": "k1"}]"#, "[]");
                session.run("ALTER TABLE assets DISABLE TRIGGER USER");
                application.add_asset(&mut session, 1, 1, "k1");
                session.run("ALTER TABLE assets ENABLE TRIGGER USER");
                let about = format!("{lesson_id} × {organization_id}");
                let one = session.counters(&format!(
                    "SELECT * FROM backfill_lesson_assets(3, organization_id => {})",
                    literal(&application.organization(2))
                ));
                assert_eq!(one.get("lessons_scanned"), 1, "{about}");
                let rest = session.counters(&format!(
                    "SELECT * FROM backfill_lesson_assets(3, after => {}, max_lessons => 5)",
                    literal(&application.lesson(4))
                ));
                assert_eq!(rest.get("lessons_scanned"), 5, "{about}");
                let ids = session.rows(&format!(
                    "SELECT DISTINCT lesson_id FROM explain_lesson_assets(after => {}, max_lessons => 2)",
                    literal(&application.lesson(8))
                ));
                let ids: Vec<_> = ids.into_iter().flatten().flatten().collect();
                assert!(
                    ids.contains(&application.lesson(9)) && ids.contains(&application.lesson(10)),
                    "{about}: {ids:?}"
                );
                let dry = session.counters("SELECT * FROM backfill_lesson_assets(5)");
                assert_eq!(
                    session.counters("SELECT * FROM backfill_lesson_assets(5, true)"),
                    dry,
                    "{about}"
                );
                dry.expect(&[("assets_created", 12), ("assets_reused", 1), ("usages_created", 13)]);
                assert_items_are_settled(&mut session);
                assert_verified(&mut session);
                session.counters(EXECUTE).expect_no_work();
                assert!(
                    session.is_true("SELECT bool_and(target_id IN (SELECT id::text FROM lesson)) FROM asset_usages")
                );
            }
        }
    });
}

#[test]
fn lesson_ids_of_odd_types() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("CREATE DOMAIN lesson_number AS bigint CHECK (VALUE > 0); CREATE DOMAIN lesson_code AS text");
        for (number, (id_type, ids)) in [
            ("integer", ["9", "10", "-3"]),
            ("smallint", ["9", "10", "-3"]),
            ("varchar(40)", ["b", "a", "C"]),
            ("lesson_number", ["9", "10", "100"]),
            ("lesson_code", ["NULL", "{a,b}", "é"]),
            ("numeric", ["1.50", "-2", "1e30"]),
            (
                "timestamptz",
                ["2024-01-01 00:00:00+00", "2023-06-01 12:00:00.123456+00", "infinity"],
            ),
            ("date", ["2024-01-01", "0044-03-15 BC", "2025-01-01"]),
            ("char(8)", ["b", "a", "C"]),
            ("\"char\"", ["b", "a", "C"]),
            ("bytea", ["\\x00ff", "\\x", "\\x27"]),
            (
                "uuid",
                [
                    "FFFFFFFF-0000-4000-8000-000000000001",
                    "{00000000-0000-4000-8000-000000000001}",
                    "10000000-0000-4000-8000-000000000001",
                ],
            ),
        ]
        .into_iter()
        .enumerate()
        {
            // the text form must not hang on how a session writes dates
            session.run(&format!(
                "CREATE SCHEMA odd_{number}; SET search_path = odd_{number}, public; SET TimeZone = 'UTC'"
            ));
            Application {
                lesson_id: id_type.into(),
                ..Application::default()
            }
            .create_lesson_side(&mut session);
            session.run("SELECT * FROM create_asset_tables()");
            for id in ids {
                let id = literal(id);
                session.run(&format!("INSERT INTO lesson (id, course_id, videos) VALUES ({id}, 1, jsonb_build_array(jsonb_build_object('key', {id}::text)))"));
            }
            let dry = session.counters("SELECT * FROM backfill_lesson_assets(1)");
            dry.expect(&[("lessons_scanned", 3), ("batches", 3), ("media_items_eligible", 3)]);
            assert_eq!(
                session.counters("SELECT * FROM backfill_lesson_assets(1, true)"),
                dry,
                "{id_type}"
            );
            assert_items_are_settled(&mut session);
            assert_verified(&mut session);
            // behind the first of the primary key's own order
            let first = session.text("SELECT l.id::text FROM lesson l ORDER BY l.id LIMIT 1");
            let rest = session.counters(&format!(
                "SELECT * FROM backfill_lesson_assets(after => {})",
                literal(&first)
            ));
            assert_eq!(rest.get("lessons_scanned"), 2, "behind {first} of {id_type}");
        }
    });
}

#[test]
fn text_ids_that_break_arrays_and_quotes() {
    const IDS: [&str; 14] = [
        "",
        " ",
        "NULL",
        "null",
        "{a,b}",
        "a\"b",
        "a\\b",
        "it's",
        "$1",
        "%s",
        "'; DROP TABLE lesson; --",
        "ünï\u{1F600}",
        "a,b",
        "tab\there\nline",
    ];
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application {
            lesson_id: "text".into(),
            organization_id: "text".into(),
        };
        application.create_lesson_side(&mut session);
        session.run("SELECT * FROM create_asset_tables()");
        for (number, id) in (10..).zip(IDS) {
            let text = literal(id);
            session.run(&format!(
                "INSERT INTO \"group\" VALUES ({number}, {text}); INSERT INTO course VALUES ({number}, {number});
                 INSERT INTO lesson (id, course_id, videos) VALUES ({text}, {number}, jsonb_build_array(jsonb_build_object('key', 'k' || {text}, 'fileName', {text})))"
            ));
        }
        let dry = session.counters("SELECT * FROM backfill_lesson_assets(3)");
        dry.expect(&[("lessons_scanned", 14), ("assets_created", 14)]);
        assert_eq!(session.counters("SELECT * FROM backfill_lesson_assets(3, true)"), dry);
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
        for id in IDS {
            let text = literal(id);
            assert_eq!(
                session.number(&format!(
                    "SELECT count(*) FROM asset_usages WHERE target_id = {text} AND organization_id = {text}"
                )),
                1,
                "{id:?}"
            );
            session
                .counters(&format!(
                    "SELECT * FROM backfill_lesson_assets(organization_id => {text}, execute => true)"
                ))
                .expect(&[("lessons_scanned", 1), ("assets_reused", 1)]);
        }
    });
}

#[test]
fn paging_follows_the_order_of_the_primary_key() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        // as text 10 comes before 9, as a number behind it
        for (number, (column, key)) in [
            ("id text COLLATE \"C\"", "CREATE UNIQUE INDEX lesson_key ON lesson (id)"),
            ("id text", "CREATE UNIQUE INDEX lesson_key ON lesson (id)"),
            ("id bigint", "CREATE UNIQUE INDEX lesson_key ON lesson (id)"),
        ]
        .into_iter()
        .enumerate()
        {
            session.run(&format!(
                "CREATE SCHEMA paging_{number}; SET search_path = paging_{number}, public;
                 CREATE TABLE \"group\" (id int PRIMARY KEY, organization_id uuid); INSERT INTO \"group\" VALUES (1, gen_random_uuid());
                 CREATE TABLE course (id int PRIMARY KEY, group_id int); INSERT INTO course VALUES (1, 1);
                 CREATE TABLE lesson ({column}, course_id int, videos jsonb, documents jsonb);
                 INSERT INTO lesson SELECT n, 1, jsonb_build_array(jsonb_build_object('key', 'same', 'fileName', 'of ' || n)) FROM generate_series(1, 120) n;
                 {key}; ALTER TABLE lesson ALTER id SET NOT NULL, ADD PRIMARY KEY USING INDEX lesson_key;
                 SELECT * FROM create_asset_tables()"
            ));
            let first = session.text("SELECT l.id::text FROM lesson l ORDER BY l.id LIMIT 1");
            session
                .counters("SELECT * FROM backfill_lesson_assets(7, true)")
                .expect(&[("lessons_scanned", 120), ("assets_created", 1), ("batches", 18)]);
            assert_eq!(
                session.text("SELECT title FROM assets"),
                format!("of {first}"),
                "the first item of a key gives the asset its fields"
            );
        }
    });
}

#[test]
fn views_in_place_of_tables() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "CREATE SCHEMA storage; CREATE SCHEMA app; SET search_path = storage, public;
             CREATE TABLE teams (team_id int PRIMARY KEY, owner_org uuid);
             CREATE TABLE courses (course_no int PRIMARY KEY, team int);
             CREATE TABLE lessons (lesson_no bigint PRIMARY KEY, course int, clips jsonb, papers jsonb, secret text DEFAULT 's');
             CREATE VIEW app.\"group\" AS SELECT team_id AS id, owner_org AS organization_id FROM teams;
             CREATE VIEW app.course AS SELECT course_no AS id, team AS group_id FROM courses;
             CREATE VIEW app.lesson AS SELECT course AS course_id, papers AS documents, lesson_no AS id, clips AS videos FROM lessons;
             CREATE TABLE \"group\" (id int, organization_id uuid);
             SELECT * FROM create_asset_tables();
             DROP TABLE \"group\";
             ALTER TABLE assets RENAME TO files; ALTER TABLE asset_usages RENAME TO file_uses;
             ALTER TABLE file_uses RENAME position TO place;
             CREATE VIEW app.assets AS SELECT id, organization_id, kind, provider, storage_provider, storage_key, source_url, mime_type, byte_size,
                 title, description, thumbnail_url, duration_seconds, aspect_ratio, is_external, status, metadata, canonical_key,
                 created_at, updated_at FROM files;
             CREATE VIEW app.asset_usages AS SELECT id, organization_id, asset_id, target_type, target_id, slot_type, slot_key, place AS position FROM file_uses;
             INSERT INTO teams VALUES (1, gen_random_uuid()); INSERT INTO courses VALUES (1, 1);
             INSERT INTO lessons SELECT n, 1, jsonb_build_array(jsonb_build_object('key', 'k' || n % 7)), '[]' FROM generate_series(1, 30) n;
             SET search_path = app, public",
        );
        session
            .counters(DRY)
            .expect(&[("lessons_scanned", 30), ("assets_created", 7), ("usages_created", 30)]);
        run_whole(&mut session);
        assert_eq!(
            session.number("SELECT count(*) FROM storage.files WHERE canonical_key IS NOT NULL"),
            7
        );
        assert_eq!(
            session.number("SELECT count(*) FROM storage.lessons WHERE secret = 's'"),
            30
        );
        let errors = session.rows("SELECT c::text FROM check_asset_tables() c");
        assert!(errors.is_empty(), "{errors:?}");
    });
}

#[test]
fn a_view_that_cannot_be_written_is_one_clear_error() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 3);
        session.run(
            "ALTER TABLE lesson RENAME TO lessons;
             CREATE VIEW lesson AS SELECT DISTINCT id, course_id, videos, documents FROM lessons",
        );
        for call in [EXECUTE, "CALL run_backfill('lesson_assets', execute => true)"] {
            let error = session.fails_with_hint("55000", call);
            assert!(error.message().contains("view lesson cannot be written"), "{error}");
        }
        assert_eq!(session.number("SELECT count(*) FROM assets"), 0);
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
    });
}

#[test]
fn names_that_need_quoting() {
    const SCHEMA: &str = "My \"App\"'s $1 schema; %s";
    each_server(|server| {
        let database = server.empty_database();
        let mut session = database.session();
        let path = format!("SET search_path = {}, \"Media Assets\"", identifier(SCHEMA));
        session.run(&format!(
            "CREATE SCHEMA \"Media Assets\"; CREATE EXTENSION media_assets SCHEMA \"Media Assets\"; CREATE SCHEMA {}; {path}",
            identifier(SCHEMA)
        ));
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 10);
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        application.add_asset(&mut session, 1, 1, "k1");
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        run_whole(&mut session);
        session.run("SELECT * FROM prepare_asset_tables(true); SELECT * FROM dedupe_asset_usages(true); SELECT * FROM backfill_asset_keys(execute => true)");
        // DDL that the functions print must run as it is printed
        session.run("SET search_path = public; DROP SCHEMA \"Media Assets\" CASCADE");
    });
}

#[test]
fn tables_in_several_schemas_are_found_in_the_order_of_the_path() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session
            .run("CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA c; CREATE SCHEMA decoy; SET search_path = a, public");
        let application = Application::create(&mut session);
        session.run(
            "ALTER TABLE course SET SCHEMA b; ALTER TABLE \"group\" SET SCHEMA b; ALTER TABLE asset_usages SET SCHEMA c;
             SET search_path = decoy, public",
        );
        Application::create(&mut session);
        session.run("SET search_path = a, b, c, decoy, public");
        application.add_uploads(&mut session, 1, 10);
        run_whole(&mut session);
        assert_eq!(session.number("SELECT count(*) FROM c.asset_usages"), 10);
        assert_eq!(session.number("SELECT count(*) FROM a.assets"), 10);
        assert_eq!(session.number("SELECT count(*) FROM decoy.assets"), 0);
        // the extension's schema need not be on the path
        session.run("SET search_path = a, b, c");
        session
            .counters("SELECT * FROM public.backfill_lesson_assets(execute => true)")
            .expect_no_work();
    });
}

#[test]
fn an_empty_search_path_finds_no_table_and_says_so() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 3);
        session.run("SET search_path = ''");
        for call in [
            "public.backfill_lesson_assets()",
            "public.backfill_lesson_assets(execute => true)",
            "public.explain_lesson_assets()",
            "public.verify_lesson_assets()",
        ] {
            let error = session.fails_with_hint("42P01", &format!("SELECT * FROM {call}"));
            assert!(words(&error).contains("lesson"), "{error}");
        }
        session.run("SELECT * FROM public.normalize_lesson_media('lesson_video', '{}'); SELECT * FROM public.parse_media_link('https://youtu.be/dQw4w9WgXcQ')");
        session.run("SET search_path = pg_catalog");
        session.fails("42P01", "SELECT * FROM public.backfill_lesson_assets()");
        session.run("SET search_path = nowhere, public");
        session.counters(EXECUTE).expect(&[("assets_created", 3)]);
    });
}

#[test]
fn key_triggers_work_under_an_empty_and_under_a_hostile_search_path() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        session.run(
            "CREATE SCHEMA evil;
             CREATE FUNCTION evil.no(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hijacked'; END$$;
             CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hijacked'; END$$;
             CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.no);
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.no);
             CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.no);
             CREATE FUNCTION evil.asset_canonical_key(text, text, text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$SELECT 'hijacked'$$;
             CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'hijacked'$$;
             CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE sql AS $$SELECT $1[1]$$;
             CREATE TABLE evil.assets (id uuid, canonical_key text)",
        );
        for (number, path) in (1..).step_by(2).zip(["''", "evil, pg_catalog", "pg_catalog"]) {
            let organization = application.organization(1);
            session.run(&format!("SET search_path = {path}"));
            for (id, key) in [(number, format!("k{number}")), (number + 1, format!("k{number}"))] {
                let insert = insert_asset(&application.asset(id), &organization, &key);
                session.run(&insert.replace("INSERT INTO assets", "INSERT INTO public.assets"));
            }
            session.run(&format!("UPDATE public.assets SET storage_key = 'moved' || storage_key WHERE id::text OPERATOR(pg_catalog.=) '{}'", application.asset(number)));
            session.run("RESET search_path");
            let keys = session.rows(&format!(
                "SELECT canonical_key FROM assets WHERE id IN ('{}', '{}') ORDER BY id",
                application.asset(number),
                application.asset(number + 1)
            ));
            assert_eq!(
                keys,
                [[Some(format!("upload:movedk{number}"))], [None]],
                "search_path {path}"
            );
        }
    });
}

#[test]
fn columns_constraints_and_triggers_of_the_user() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 20);
        session.run(
            "ALTER TABLE assets ADD slug text NOT NULL DEFAULT 'none', ADD shout text GENERATED ALWAYS AS (upper(storage_key)) STORED,
                 ADD \"Odd name\" int, ADD CHECK (kind IN ('video', 'document', 'image', 'audio', 'other')), ADD dropped int;
             ALTER TABLE assets DROP dropped;
             ALTER TABLE asset_usages ADD created_by text DEFAULT current_user, ADD CHECK (position >= 0);
             ALTER TABLE lesson ADD dropped int, ADD revision int NOT NULL DEFAULT 0; ALTER TABLE lesson DROP dropped;
             CREATE TABLE audit (what text);
             CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NEW; END$$;
             CREATE FUNCTION revise() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.revision := OLD.revision + 1; NEW.updated_at := now(); RETURN NEW; END$$;
             CREATE FUNCTION slug() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.slug := 's-' || NEW.storage_key; RETURN NEW; END$$;
             CREATE TRIGGER audit AFTER INSERT OR UPDATE ON assets FOR EACH ROW EXECUTE FUNCTION audit();
             CREATE TRIGGER audit AFTER INSERT OR UPDATE ON asset_usages FOR EACH ROW EXECUTE FUNCTION audit();
             CREATE TRIGGER audit AFTER INSERT OR UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION audit();
             CREATE TRIGGER revise BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION revise();
             CREATE TRIGGER slug BEFORE INSERT ON assets FOR EACH ROW EXECUTE FUNCTION slug()",
        );
        run_whole(&mut session);
        // each row once, and nothing updated that was created a moment before
        let audit = session.rows("SELECT what, count(*)::text FROM audit GROUP BY 1 ORDER BY 1");
        let expected = [
            ("asset_usages INSERT", "20"),
            ("assets INSERT", "20"),
            ("lesson UPDATE", "20"),
        ];
        assert_eq!(
            audit,
            expected.map(|(what, count)| vec![Some(what.to_owned()), Some(count.to_owned())])
        );
        assert_eq!(session.number("SELECT count(*) FROM lesson WHERE revision = 1"), 20);
        assert_eq!(
            session
                .number("SELECT count(*) FROM assets WHERE slug = 's-' || storage_key AND shout = upper(storage_key)"),
            20
        );
    });
}

#[test]
fn a_patch_leaves_every_other_column_alone() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 5);
        session.run("UPDATE lesson SET updated_at = '2020-02-02'; CREATE TABLE before AS SELECT * FROM lesson");
        session.run(EXECUTE);
        let changed = session.number(
            "SELECT count(*) FROM lesson l JOIN before b USING (id)
             WHERE (to_jsonb(l) #- '{videos,0,assetId}')::text <> to_jsonb(b)::text OR l.updated_at <> '2020-02-02'",
        );
        assert_eq!(changed, 0);
    });
}

#[test]
fn usage_ids_by_identity_serial_default_and_by_us() {
    each_server(|server| {
        for definition in [
            "bigint GENERATED ALWAYS AS IDENTITY",
            "bigint GENERATED BY DEFAULT AS IDENTITY",
            "bigserial",
            "uuid DEFAULT gen_random_uuid()",
            "uuid",
            "text DEFAULT gen_random_uuid()::text",
        ] {
            let database = server.database();
            let mut session = database.session();
            let application = Application::create(&mut session);
            session.run(&format!(
                "ALTER TABLE asset_usages DROP id; ALTER TABLE asset_usages ADD id {definition} PRIMARY KEY"
            ));
            application.add_uploads(&mut session, 1, 8);
            run_whole(&mut session);
            assert_eq!(
                session.number("SELECT count(DISTINCT id) FROM asset_usages"),
                8,
                "{definition}"
            );
        }
    });
}

#[test]
fn partitioned_lessons_are_lessons() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        session.run(
            "DROP TABLE lesson;
             CREATE TABLE lesson (id uuid PRIMARY KEY, course_id int, title text, videos jsonb, documents jsonb) PARTITION BY HASH (id);
             CREATE TABLE lesson_0 PARTITION OF lesson FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE lesson_1 PARTITION OF lesson FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        );
        application.add_uploads(&mut session, 1, 40);
        run_whole(&mut session);
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 40);
    });
}

#[test]
fn settings_of_the_session_do_not_change_what_is_written() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 10);
        session.run(
            "SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'; SET bytea_output = 'escape'; SET extra_float_digits = -15;
             SET standard_conforming_strings = off; SET escape_string_warning = off; SET backslash_quote = off; SET array_nulls = off;
             SET transform_null_equals = on; SET quote_all_identifiers = on; SET enable_indexscan = off; SET enable_seqscan = off;
             SET default_transaction_deferrable = on; SET plan_cache_mode = force_generic_plan;
             SET statement_timeout = '60s'; SET session_replication_role = origin; SET row_security = off",
        );
        run_whole(&mut session);
        assert_eq!(session.text("SHOW row_security"), "off");
    });
}

#[test]
fn drop_extension_says_what_depends_on_it() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 3);
        session.run(EXECUTE);
        session.fails("2BP01", "DROP EXTENSION media_assets");
        session.run("DROP EXTENSION media_assets CASCADE");
        assert_eq!(session.number("SELECT count(*) FROM assets"), 3, "the user's rows stay");
        // without the extension, the application's writes go on
        application.add_asset(&mut session, 1, 1, "later");
    });
}
