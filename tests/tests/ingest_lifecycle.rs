//! The tables of an ingest, and that no statement makes an asset ready or approved that must not be.

use media_assets_tests::ingest::{add_collection, create_tables};
use media_assets_tests::{each_server, Server, Session};

/// One asset for each state; those that are ready are approved too.
fn add_assets(session: &mut Session, collection: &str) {
    session.run(&format!(
        "INSERT INTO collection_assets (collection_uuid, canonical_key, title, size, mtime, content_hash, content_signature)
         SELECT '{collection}', state, state, 1, '2025-01-01', 'h', 'size:1' FROM unnest('{{new,enriching,ready,retired}}'::text[]) state;
         UPDATE collection_assets SET state = 'enriching' WHERE title IN ('enriching', 'ready');
         UPDATE collection_assets SET state = 'ready', approved_for_broadcast = true WHERE title = 'ready';
         UPDATE collection_assets SET state = 'retired' WHERE title = 'retired'"
    ));
}

fn rows(session: &mut Session) -> Vec<media_assets_tests::Row> {
    session.rows("SELECT to_jsonb(a)::text FROM collection_assets a ORDER BY 1")
}

fn with_assets(test: impl Fn(&Server, &mut Session, &str)) {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        let collection = add_collection(&mut session, "TV");
        add_assets(&mut session, &collection);
        test(server, &mut session, &collection);
    });
}

/// Each statement fails with 23514 and a HINT, and leaves everything as it was.
fn all_are_rejected(session: &mut Session, statements: &[String]) {
    let before = rows(session);
    for statement in statements {
        session.fails_with_hint("23514", statement);
        assert_eq!(rows(session), before, "{statement}");
    }
}

#[test]
fn create_is_repeatable_and_alters_nothing_that_is_there() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("CREATE SCHEMA app; SET search_path = app, public");
        let made = session.rows("SELECT relation FROM create_ingest_tables() WHERE executed");
        assert!(made.len() >= 5, "{made:?}");
        let schema = "SELECT oid::regclass::text, relkind, (SELECT array_agg(pg_get_triggerdef(t.oid) ORDER BY tgname) FROM pg_trigger t WHERE tgrelid = c.oid)
             FROM pg_class c WHERE relnamespace = 'app'::regnamespace ORDER BY 1";
        let before = session.rows(schema);
        assert_eq!(
            session.number("SELECT count(*) FROM create_ingest_tables() WHERE executed"),
            0
        );
        assert_eq!(session.rows(schema), before);
        session.run(
            "DROP TABLE collection_assets; ALTER TABLE collections DROP COLUMN path_mappings, ADD COLUMN mine int",
        );
        session.run("SELECT * FROM create_ingest_tables()");
        assert!(session.is_true("SELECT to_regclass('app.collection_assets') IS NOT NULL"));
        assert_eq!(
            session.number("SELECT count(*) FROM pg_attribute WHERE attrelid = 'collections'::regclass AND attname IN ('path_mappings', 'mine')"),
            1
        );
        session.fails("25006", "BEGIN READ ONLY; SELECT * FROM create_ingest_tables()");
        session.run("SET search_path = pg_catalog");
        session.fails_with_hint(
            "3F000",
            "SET search_path = nowhere; SELECT * FROM public.create_ingest_tables()",
        );
        session.run("CREATE SCHEMA odd; CREATE TYPE odd.asset_state AS ENUM ('x')");
        session.fails_with_hint(
            "42804",
            "SET search_path = odd; SELECT * FROM public.create_ingest_tables()",
        );
    });
}

#[test]
fn nothing_is_inserted_ready_or_approved() {
    with_assets(|server, session, collection| {
        let columns = "collection_assets (collection_uuid, canonical_key, state, approved_for_broadcast)";
        let mut statements = vec![
            format!("INSERT INTO {columns} VALUES ('{collection}', 'x', 'ready', false)"),
            format!("INSERT INTO {columns} VALUES ('{collection}', 'x', 'ready', true)"),
            format!("INSERT INTO {columns} VALUES ('{collection}', 'x', 'new', true)"),
            format!("INSERT INTO {columns} VALUES ('{collection}', 'x', 'enriching', true)"),
            format!("INSERT INTO {columns} VALUES ('{collection}', 'x', 'new', false), ('{collection}', 'y', 'ready', false)"),
            format!("INSERT INTO {columns} VALUES ('{collection}', 'x', 'ready', false) ON CONFLICT DO NOTHING"),
            // an upsert of a row that is there
            format!(
                "INSERT INTO {columns} VALUES ('{collection}', 'new', 'new', false) ON CONFLICT (collection_uuid, canonical_key) DO UPDATE SET state = 'ready'"
            ),
            format!(
                "INSERT INTO {columns} VALUES ('{collection}', 'ready', 'new', false) ON CONFLICT (collection_uuid, canonical_key) DO UPDATE SET size = 2"
            ),
            // a table full of them, through a CTE
            format!(
                "WITH gone AS (DELETE FROM collection_assets WHERE title = 'ready' RETURNING *)
                 INSERT INTO collection_assets SELECT gen_random_uuid(), '{collection}', 'z', uri, title, season, episode, size, mtime, content_hash,
                     content_signature, enricher_checksum, state FROM gone"
            ),
        ];
        if server.major >= 15 {
            statements.push(format!(
                "MERGE INTO collection_assets a USING (VALUES ('z')) v(k) ON a.canonical_key = v.k
                 WHEN NOT MATCHED THEN INSERT (collection_uuid, canonical_key, state) VALUES ('{collection}', v.k, 'ready')"
            ));
            statements.push(
                "MERGE INTO collection_assets a USING (VALUES ('ready')) v(k) ON a.canonical_key = v.k WHEN MATCHED THEN UPDATE SET content_hash = 'other'"
                    .into(),
            );
        }
        all_are_rejected(session, &statements);
        // COPY has no hint of its own to give: the trigger's
        let before = rows(session);
        for line in ["x\tready\tf", "x\tready\tt", "x\tnew\tt"] {
            let mut writer = session
                .client
                .copy_in(
                    "COPY collection_assets (collection_uuid, canonical_key, state, approved_for_broadcast) FROM STDIN",
                )
                .expect("COPY starts");
            std::io::Write::write_all(&mut writer, format!("{collection}\t{line}\n").as_bytes()).expect("sent");
            let error = writer.finish().expect_err("rejected");
            let error = error.as_db_error().expect("by the server");
            assert_eq!(error.code().code(), "23514");
            assert!(error.hint().is_some());
        }
        assert_eq!(rows(session), before);
    });
}

#[test]
fn only_the_transitions_of_the_page_are_let_pass() {
    with_assets(|_, session, _| {
        let allowed = [
            ("new", "enriching"),
            ("new", "retired"),
            ("enriching", "new"),
            ("enriching", "ready"),
            ("enriching", "retired"),
            ("ready", "new"),
            ("ready", "enriching"),
            ("ready", "retired"),
            ("retired", "new"),
        ];
        let states = ["new", "enriching", "ready", "retired"];
        for from in states {
            for to in states {
                let statement = format!("UPDATE collection_assets SET state = '{to}', approved_for_broadcast = false WHERE title = '{from}'");
                if from == to || allowed.contains(&(from, to)) {
                    session.run(&format!("BEGIN; {statement}; ROLLBACK"));
                } else {
                    all_are_rejected(session, &[statement]);
                }
            }
        }
    });
}

#[test]
fn a_ready_or_approved_asset_keeps_its_content_and_enrichers() {
    with_assets(|_, session, collection| {
        let ready = "WHERE title = 'ready'";
        let mut statements: Vec<String> = [
            "content_hash = 'other'",
            "content_hash = NULL",
            "size = 2",
            "size = NULL",
            "mtime = '2025-01-01 00:00:00.000001'",
            "mtime = NULL",
            "mtime = 'infinity'",
            "content_signature = 'size:2'",
            "content_signature = NULL",
            "enricher_checksum = 'c'",
            "size = 2, mtime = '2026-01-01', content_hash = 'x', content_signature = 'size:2'",
            // approval alone is not enough, and neither is the state
            "size = 2, approved_for_broadcast = false",
            "size = 2, state = 'enriching'",
            // with another key, another collection, another id
            "size = 2, canonical_key = 'moved'",
            "size = 2, uuid = gen_random_uuid()",
            "state = 'enriching'",
            "is_deleted = true, deleted_at = now()",
        ]
        .iter()
        .map(|change| format!("UPDATE collection_assets SET {change} {ready}"))
        .collect();
        statements.push("UPDATE collection_assets SET size = size + 1".into());
        statements.push("UPDATE collection_assets SET approved_for_broadcast = true".into());
        statements.push("UPDATE collection_assets SET approved_for_broadcast = true WHERE title = 'enriching'".into());
        statements.push(
            "UPDATE collection_assets SET (state, approved_for_broadcast) = ('ready', true) WHERE title = 'new'".into(),
        );
        statements.push(format!(
            "INSERT INTO collections (uuid, source_type, name) VALUES (gen_random_uuid(), 'plex', 'B');
             UPDATE collection_assets SET collection_uuid = (SELECT uuid FROM collections WHERE name = 'B'), size = 5 WHERE collection_uuid = '{collection}'"
        ));
        all_are_rejected(session, &statements);
        // what the page lets pass
        for change in [
            "title = title, uri = 'elsewhere', metadata = '{}', operator_verified = true, duration_ms = 5",
            "canonical_key = 'moved'",
            "uuid = gen_random_uuid()",
            "size = 2, state = 'enriching', approved_for_broadcast = false",
            "size = 2, state = 'new', approved_for_broadcast = false, enricher_checksum = 'c'",
            "approved_for_broadcast = false, is_deleted = true, deleted_at = now()",
        ] {
            session.run(&format!(
                "BEGIN; UPDATE collection_assets SET {change} {ready}; ROLLBACK"
            ));
        }
        session.run(
            "UPDATE collection_assets SET state = 'new', approved_for_broadcast = false, content_hash = NULL, size = NULL, mtime = NULL, content_signature = NULL
             WHERE title = 'ready';
             UPDATE collection_assets SET state = 'enriching' WHERE title = 'ready';
             UPDATE collection_assets SET state = 'ready', approved_for_broadcast = true WHERE title = 'ready';
             UPDATE collection_assets SET content_hash = 'learned', size = 3, mtime = now(), content_signature = 'size:3' WHERE title = 'ready'",
        );
        assert!(session.is_true("SELECT approved_for_broadcast FROM collection_assets WHERE title = 'ready'"));
    });
}

#[test]
fn triggers_of_the_user_cannot_go_around_it() {
    with_assets(|_, session, collection| {
        session.run(
            "CREATE FUNCTION mischief() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 NEW.state := 'ready'; NEW.size := 77; RETURN NEW; END$$;
             CREATE TRIGGER zzz BEFORE INSERT OR UPDATE ON collection_assets FOR EACH ROW EXECUTE FUNCTION mischief()",
        );
        all_are_rejected(
            session,
            &[
                format!("INSERT INTO collection_assets (collection_uuid, canonical_key) VALUES ('{collection}', 'x')"),
                "UPDATE collection_assets SET title = 'y' WHERE title = 'ready'".into(),
                "UPDATE collection_assets SET title = 'y' WHERE title = 'new'".into(),
            ],
        );
    });
}

#[test]
fn an_operator_of_the_users_own_does_not_fool_it() {
    with_assets(|_, session, collection| {
        session.run(
            "CREATE SCHEMA evil; CREATE FUNCTION evil.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
             SET search_path = evil, pg_catalog, public",
        );
        all_are_rejected(
            session,
            &[
                format!("INSERT INTO public.collection_assets (collection_uuid, canonical_key, state) VALUES ('{collection}', 'x', 'ready')"),
                "UPDATE public.collection_assets SET size = 2 WHERE title OPERATOR(pg_catalog.=) 'ready'".into(),
            ],
        );
    });
}

#[test]
fn constraints_hold_whatever_the_triggers_do() {
    with_assets(|_, session, _| {
        session.run("ALTER TABLE collection_assets DISABLE TRIGGER USER");
        for statement in [
            "UPDATE collection_assets SET approved_for_broadcast = true WHERE title = 'new'",
            "UPDATE collection_assets SET is_deleted = true",
            "UPDATE collection_assets SET deleted_at = now()",
            "UPDATE collection_assets SET is_deleted = true, deleted_at = now() WHERE title = 'ready'",
        ] {
            session.fails("23514", statement);
        }
        session.fails("23505", "UPDATE collection_assets SET canonical_key = 'same'");
    });
}

#[test]
fn no_statement_that_writes_goes_around_it() {
    with_assets(|server, session, collection| {
        let insert = format!("INSERT INTO collection_assets (collection_uuid, canonical_key, state) VALUES ('{collection}', 'x', 'ready')");
        let update = "UPDATE collection_assets SET size = 2 WHERE title = 'ready'";
        let mut statements = Vec::new();
        for write in [
            insert.as_str(),
            update,
            "UPDATE collection_assets SET state = 'ready' WHERE title = 'new'",
        ] {
            let quoted = write.replace('\'', "''");
            statements.extend([
                format!("DEALLOCATE ALL; PREPARE p AS {write}; EXECUTE p"),
                format!("DO $$BEGIN {write}; END$$"),
                format!("DO $$BEGIN EXECUTE '{quoted}'; END$$"),
                format!("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $${write}$$; SELECT f()"),
                format!("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$BEGIN {}; END$$; SELECT f()",
                    write.replace("collection_assets", "public.collection_assets")),
                format!("CREATE PROCEDURE p() LANGUAGE plpgsql AS $$BEGIN {write}; END$$; CALL p()"),
                format!("EXPLAIN (ANALYZE, COSTS OFF) {write}"),
                format!("WITH w AS ({write} RETURNING 1) SELECT count(*) FROM w"),
                // what somebody else's table, view or rule does
                format!("CREATE TABLE log (n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {write}; RETURN NULL; END$$;
                         CREATE TRIGGER t AFTER INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION f(); INSERT INTO log VALUES (1)"),
                format!("CREATE TABLE log (n int); CREATE RULE r AS ON INSERT TO log DO ALSO {write}; INSERT INTO log VALUES (1)"),
                format!("CREATE RULE r AS ON UPDATE TO collections DO ALSO {write}; UPDATE collections SET name = name"),
                // at the end of the transaction
                format!("CREATE TABLE log (n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {write}; RETURN NULL; END$$;
                         CREATE CONSTRAINT TRIGGER t AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();
                         BEGIN; INSERT INTO log VALUES (1); COMMIT"),
            ]);
        }
        let columns = "(collection_uuid, canonical_key, state, approved_for_broadcast)";
        statements.extend([
            // cursors
            "BEGIN; DECLARE c CURSOR FOR SELECT * FROM collection_assets WHERE title = 'ready' FOR UPDATE; FETCH c;
             UPDATE collection_assets SET content_hash = 'other' WHERE CURRENT OF c".into(),
            "DO $$DECLARE c CURSOR FOR SELECT * FROM collection_assets WHERE title = 'new'; r record; BEGIN
                 OPEN c; FETCH c INTO r; UPDATE collection_assets SET approved_for_broadcast = true WHERE CURRENT OF c; END$$".into(),
            // joins, sub-selects, rows
            "UPDATE collection_assets a SET size = a.size + c.n FROM (VALUES ('ready', 1)) c(title, n) WHERE a.title = c.title".into(),
            "UPDATE ONLY collection_assets SET (size, mtime) = (SELECT 5, now()) WHERE title = 'ready'".into(),
            "UPDATE collection_assets SET size = DEFAULT WHERE title = 'ready'".into(),
            format!("INSERT INTO collection_assets {columns} SELECT collection_uuid, canonical_key || '2', state, approved_for_broadcast FROM collection_assets"),
            format!("INSERT INTO collection_assets {columns} TABLE (VALUES ('{collection}'::uuid, 'x', 'ready'::asset_state, false)) LIMIT 1").replace("TABLE (VALUES", "SELECT * FROM (VALUES").replace(") LIMIT 1", ") v LIMIT 1"),
            format!("INSERT INTO collection_assets {columns} VALUES ('{collection}', 'ready', 'new', false)
                     ON CONFLICT (collection_uuid, canonical_key) DO UPDATE SET (size, state) = (7, excluded.state) WHERE false OR true; UPDATE collection_assets SET state = 'ready' WHERE title = 'ready'"),
            // defaults
            format!("ALTER TABLE collection_assets ALTER state SET DEFAULT 'ready'; INSERT INTO collection_assets (collection_uuid, canonical_key) VALUES ('{collection}', 'x')"),
            format!("ALTER TABLE collection_assets ALTER approved_for_broadcast SET DEFAULT true; INSERT INTO collection_assets {columns} VALUES ('{collection}', 'x', 'new', DEFAULT)"),
            // views, and what stands in for their rows
            format!("CREATE VIEW v AS SELECT * FROM collection_assets WHERE NOT is_deleted WITH CHECK OPTION; INSERT INTO v {columns} VALUES ('{collection}', 'x', 'ready', false)"),
            "CREATE VIEW v AS SELECT * FROM collection_assets; UPDATE v SET enricher_checksum = 'other' WHERE title = 'ready'".into(),
            format!("CREATE VIEW v AS SELECT 1 AS n; CREATE RULE r AS ON INSERT TO v DO INSTEAD INSERT INTO collection_assets {columns} VALUES ('{collection}', 'x', 'ready', false); INSERT INTO v VALUES (1)"),
            format!("CREATE VIEW v AS SELECT 1 AS n; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                         INSERT INTO collection_assets {columns} VALUES ('{collection}', 'x', 'new', true); RETURN NEW; END$$;
                     CREATE TRIGGER t INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION f(); INSERT INTO v VALUES (1)"),
            // a row that comes from another partition, or from a child table by hand
            format!("CREATE TABLE parted (LIKE collection_assets INCLUDING DEFAULTS) PARTITION BY LIST (canonical_key);
                     CREATE TABLE elsewhere PARTITION OF parted FOR VALUES IN ('x');
                     DELETE FROM collection_assets WHERE title <> 'new'; ALTER TABLE collection_assets ADD CHECK (canonical_key = 'new');
                     ALTER TABLE parted ATTACH PARTITION collection_assets FOR VALUES IN ('new');
                     INSERT INTO parted (uuid, collection_uuid, canonical_key, state) VALUES (gen_random_uuid(), '{collection}', 'x', 'ready');
                     UPDATE collection_assets SET uuid = gen_random_uuid(); DELETE FROM collection_assets; UPDATE parted SET canonical_key = 'new'"),
            format!("CREATE TABLE child () INHERITS (collection_assets); INSERT INTO child (uuid, collection_uuid, canonical_key, state) VALUES (gen_random_uuid(), '{collection}', 'x', 'ready');
                     WITH w AS (DELETE FROM child RETURNING *) INSERT INTO collection_assets SELECT * FROM w"),
        ]);
        if server.major >= 15 {
            statements.push("MERGE INTO collection_assets a USING (VALUES ('ready', 9)) v(k, n) ON a.canonical_key = v.k WHEN MATCHED AND v.n > 1 THEN UPDATE SET size = v.n WHEN NOT MATCHED THEN DO NOTHING".into());
            statements.push("MERGE INTO collection_assets a USING collection_assets b ON a.uuid = b.uuid AND b.title = 'enriching' WHEN MATCHED THEN UPDATE SET approved_for_broadcast = true, state = b.state".into());
        }
        all_are_rejected(session, &statements);
    });
}

#[test]
fn the_way_that_is_meant_is_open() {
    with_assets(|_, session, collection| {
        // in steps, also within one transaction, and by every kind of statement
        session.run(&format!(
            "BEGIN; INSERT INTO collection_assets (collection_uuid, canonical_key) VALUES ('{collection}', 'x');
             UPDATE collection_assets SET state = 'enriching' WHERE canonical_key = 'x';
             UPDATE collection_assets SET content_hash = 'h', content_signature = 's', enricher_checksum = 'c' WHERE canonical_key = 'x';
             UPDATE collection_assets SET state = 'ready' WHERE canonical_key = 'x';
             UPDATE collection_assets SET approved_for_broadcast = true, operator_verified = true WHERE canonical_key = 'x'; COMMIT"
        ));
        assert!(session.is_true("SELECT approved_for_broadcast FROM collection_assets WHERE canonical_key = 'x'"));
        // a ready row goes back with new content in one statement, and loses its approval with it
        session.run("UPDATE collection_assets SET state = 'new', approved_for_broadcast = false, size = 9 WHERE canonical_key = 'x'");
        session.run("DELETE FROM collection_assets; TRUNCATE collection_assets");
    });
}
