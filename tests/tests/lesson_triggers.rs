//! The lesson triggers: live writes get assets, assetIds and usages, and never fail because of odd media.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use media_assets_tests::application::{assert_consistent, attached, contents, ATTACH};
use media_assets_tests::{each_server, words, Application, Session};

fn usages(session: &mut Session) -> Vec<String> {
    let rows = session.rows(
        "SELECT concat_ws(' ', right(u.target_id, 3), u.slot_type, u.position, a.canonical_key, right(u.organization_id::text, 1))
         FROM asset_usages u JOIN assets a ON a.id = u.asset_id ORDER BY u.target_id, u.slot_type DESC, u.position, a.canonical_key",
    );
    rows.into_iter().flatten().flatten().collect()
}

#[test]
fn attach_shows_runs_repeats_and_detach_takes_back() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        Application::create(&mut session);
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'lesson'::regclass AND tgname LIKE 'media_assets_lesson_%'";
        let dry = session.rows("SELECT relation, executed FROM attach_lesson_triggers()");
        assert_eq!(dry, vec![vec![Some("public.lesson".into()), Some("f".into())]; 5]);
        assert_eq!(session.number(triggers), 0, "dry by default");
        assert_eq!(session.rows(ATTACH).len(), 5);
        assert_eq!(session.number(triggers), 5);
        assert!(session.rows(ATTACH).is_empty(), "nothing is left to do");
        // names that have changed are put right by another call
        session.run(
            "ALTER TABLE assets RENAME TO media_assets_table; CREATE VIEW assets AS SELECT * FROM media_assets_table",
        );
        session.run("DROP VIEW assets; ALTER TABLE media_assets_table RENAME TO assets; CREATE SCHEMA moved; ALTER TABLE course SET SCHEMA moved; SET search_path = public, moved");
        assert_eq!(session.rows(ATTACH).len(), 10, "each is dropped and made");
        assert!(session.rows(ATTACH).is_empty());
        assert_eq!(session.rows("SELECT * FROM detach_lesson_triggers()").len(), 5);
        assert_eq!(session.number(triggers), 5, "dry by default");
        assert_eq!(session.rows("SELECT * FROM detach_lesson_triggers(true)").len(), 5);
        assert_eq!(session.number(triggers), 0);
        assert!(session.rows("SELECT * FROM detach_lesson_triggers(true)").is_empty());
        session.fails_with_hint("22023", "SELECT * FROM attach_lesson_triggers(NULL)");
        session.fails_with_hint("22023", "SELECT * FROM detach_lesson_triggers(NULL)");
        session.run("SELECT * FROM attach_lesson_triggers(true)");
        session.fails("2BP01", "DROP EXTENSION media_assets");
        session.run("DROP EXTENSION media_assets CASCADE");
        assert_eq!(session.number(triggers), 0);
    });
}

#[test]
fn attach_refuses_what_cannot_work() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::default();
        application.create_lesson_side(&mut session);
        session.fails_with_hint("42P01", ATTACH);
        session.run("SELECT * FROM create_asset_tables()");
        let role = server.role(&database);
        session.run(&format!("ALTER TABLE assets OWNER TO {}", role.name));
        let error = session.fails_with_hint("55000", ATTACH);
        assert!(
            words(&error).contains("ALTER TABLE public.assets OWNER TO"),
            "{error:?}"
        );
        session.run(&format!(
            "ALTER TABLE lesson OWNER TO {0}; ALTER TABLE asset_usages OWNER TO {0}",
            role.name
        ));
        // its rights on what it does not own
        let error = session.fails_with_hint("42501", ATTACH);
        assert!(words(&error).contains("GRANT SELECT"), "{error:?}");
        session.run(&format!("GRANT SELECT ON course, \"group\" TO {}", role.name));
        assert_eq!(session.rows(ATTACH).len(), 5);
        session.run("SELECT * FROM detach_lesson_triggers(true); ALTER TABLE lesson RENAME TO units; CREATE VIEW lesson AS SELECT * FROM units");
        let error = session.fails_with_hint("55000", ATTACH);
        assert!(
            words(&error).contains("public.units"),
            "the base table is named: {error:?}"
        );
        session.fails_with_hint("39P01", "CREATE TABLE other (x int); CREATE TRIGGER t BEFORE DELETE ON other FOR EACH ROW EXECUTE FUNCTION lesson_before_row(); INSERT INTO other VALUES (1); DELETE FROM other");
    });
}

#[test]
fn writes_of_every_kind_keep_items_assets_and_usages_together() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        let id = |number| application.lesson(number);
        application.add_lesson_of(
            &mut session,
            1,
            1,
            r#"[{"type": "upload", "key": "a"}, {"type": "upload", "key": "b", "assetId": "stale"}, {"type": "upload", "key": "a"}]"#,
            r#"[{"key": "d"}]"#,
        );
        assert_eq!(
            usages(&mut session),
            [
                "001 lesson_video 0 upload:a 1",
                "001 lesson_video 1 upload:b 1",
                "001 lesson_video 2 upload:a 1",
                "001 lesson_document 0 upload:d 1"
            ]
        );
        assert_consistent(&mut session);
        // an item goes, the others move up
        session.run("UPDATE lesson SET videos = videos - 0");
        assert_eq!(
            usages(&mut session),
            [
                "001 lesson_video 0 upload:b 1",
                "001 lesson_video 1 upload:a 1",
                "001 lesson_document 0 upload:d 1"
            ]
        );
        // usages of other slots and targets stay, stray ones of these slots go
        session.run(&format!(
            "INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, position)
             SELECT organization_id, asset_id, t, target_id, s, k, 9 FROM asset_usages,
                    (VALUES ('lesson', 'lesson_video', NULL), ('lesson', 'lesson_video', 'key'), ('lesson', 'cover', NULL), ('page', 'lesson_video', NULL)) v (t, s, k)
             WHERE slot_type = 'lesson_document';
             UPDATE lesson SET videos = videos || '[{{\"type\": \"upload\", \"key\": \"e\"}}]' WHERE id = '{}'",
            id(1)
        ));
        assert_eq!(
            session.number("SELECT count(*) FROM asset_usages WHERE position = 9"),
            2
        );
        session.run("DELETE FROM asset_usages WHERE position = 9");
        assert_consistent(&mut session);
        // another organization, another id
        session.run("UPDATE lesson SET course_id = 2");
        assert!(usages(&mut session).iter().all(|usage| usage.ends_with(" 2")));
        assert_consistent(&mut session);
        session.run(&format!("UPDATE lesson SET id = '{}'", id(2)));
        assert!(usages(&mut session).iter().all(|usage| usage.starts_with("002")));
        session.run("UPDATE lesson SET course_id = 3");
        assert!(usages(&mut session).is_empty(), "no organization, no usages");
        session.run("UPDATE lesson SET course_id = 1");
        assert_eq!(usages(&mut session).len(), 4);
        // COPY, ON CONFLICT, MERGE
        session.run(&format!(
            "INSERT INTO lesson (id, course_id, videos) VALUES ('{0}', 1, '[{{\"type\": \"upload\", \"key\": \"x\"}}]'), ('{1}', 1, '[{{\"type\": \"upload\", \"key\": \"y\"}}]')
             ON CONFLICT (id) DO UPDATE SET videos = excluded.videos, documents = NULL;
             INSERT INTO lesson (id, course_id, videos) VALUES ('{0}', 1, '[{{\"type\": \"upload\", \"key\": \"orphan\"}}]') ON CONFLICT DO NOTHING;
             MERGE INTO lesson l USING (VALUES ('{1}'::uuid, 'm'), ('{2}'::uuid, 'n'), ('{0}'::uuid, NULL)) v (id, key) ON l.id = v.id
             WHEN MATCHED AND v.key IS NULL THEN DELETE
             WHEN MATCHED THEN UPDATE SET videos = jsonb_build_array(jsonb_build_object('type', 'upload', 'key', v.key))
             WHEN NOT MATCHED THEN INSERT (id, course_id, videos) VALUES (v.id, 1, jsonb_build_array(jsonb_build_object('type', 'upload', 'key', v.key)))",
            id(2), id(3), id(4)
        ));
        assert_eq!(
            usages(&mut session),
            ["003 lesson_video 0 upload:m 1", "004 lesson_video 0 upload:n 1"]
        );
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key = 'upload:orphan'"),
            1
        );
        let mut copy = session
            .client
            .copy_in("COPY lesson (id, course_id, videos) FROM STDIN")
            .expect("COPY");
        for number in 10..110 {
            let line = format!(
                "{}\t1\t[{{\"type\": \"upload\", \"key\": \"c{}\"}}]\n",
                id(number),
                number / 2
            );
            std::io::Write::write_all(&mut copy, line.as_bytes()).expect("COPY takes a line");
        }
        copy.finish().expect("COPY ends");
        assert_eq!(usages(&mut session).len(), 102);
        assert_consistent(&mut session);
        session
            .counters("SELECT * FROM backfill_lesson_assets()")
            .expect_no_work();
        session.run(&format!("DELETE FROM lesson WHERE id > '{}'", id(20)));
        assert_eq!(usages(&mut session).len(), 13);
        session.run("TRUNCATE lesson");
        assert!(usages(&mut session).is_empty());
    });
}

#[test]
fn odd_media_are_left_as_they_are_and_recorded() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        let odd = r#"[null, 5, "text", [1], {}, {"type": "upload"}, {"type": "external_url", "link": "javascript:alert(1)"},
            {"type": "upload", "key": "good", "size": 1e400, "metadata": {"duration": "1e9"}, "assetId": 7}, {"type": "youtube", "link": " "}]"#;
        application.add_lesson(&mut session, 1, odd);
        application.add_lesson_of(&mut session, 2, 1, r#""no array""#, r#"{"key": "d"}"#);
        application.add_lesson_of(&mut session, 3, 4, r#"[{"type": "upload", "key": "nobody's"}]"#, "null");
        session.run(&format!("INSERT INTO lesson VALUES ('{}')", application.lesson(4)));
        let kept = format!(
            "SELECT videos #- '{{7,assetId}}' = ('{odd}'::jsonb #- '{{7,assetId}}') FROM lesson WHERE id = '{}'",
            application.lesson(1)
        );
        assert!(session.is_true(&kept));
        let recorded = session.rows(
            "SELECT right(item_key, 1) || ' ' || slot || ' ' || position || ' ' || reason FROM media_decisions"
                .replace(
                    "media_decisions",
                    "backfill_decisions WHERE run_id IS NULL AND outcome = 'skipped' ORDER BY decision_id",
                )
                .as_str(),
        );
        let recorded: Vec<String> = recorded.into_iter().flatten().flatten().collect();
        assert_eq!(recorded.len(), 11, "{recorded:?}");
        assert!(
            recorded.contains(&"1 lesson_video 0 malformed".to_owned()),
            "{recorded:?}"
        );
        assert!(
            recorded.contains(&"1 lesson_video 6 unsupported_link".to_owned()),
            "{recorded:?}"
        );
        assert!(
            recorded.contains(&"2 lesson_document 0 malformed".to_owned()),
            "{recorded:?}"
        );
        assert!(
            recorded.contains(&"3 lesson_video 0 missing_organization".to_owned()),
            "{recorded:?}"
        );
        assert_consistent(&mut session);
        // bounded, the newest stay
        session.run("SET media_assets.log_decisions_limit = 5");
        for _ in 0..4 {
            session.run(&format!(
                "UPDATE lesson SET videos = videos || '[0]' WHERE id = '{}'",
                application.lesson(1)
            ));
        }
        assert_eq!(session.number("SELECT count(*) FROM backfill_decisions"), 5);
        session.run(&format!(
            "SET media_assets.log_decisions = none; UPDATE lesson SET videos = '[null]' WHERE id = '{}'",
            application.lesson(1)
        ));
        assert_eq!(session.number("SELECT count(*) FROM backfill_decisions"), 5);
    });
}

#[test]
fn what_the_tables_refuse_costs_its_lesson_only() {
    each_server(|server| {
        for bulk in [false, true] {
            let (_database, mut session, application) = attached(server);
            session.run("ALTER TABLE assets ADD CONSTRAINT refused CHECK (storage_key NOT LIKE '%bad%')");
            let rows: Vec<String> = (1..=if bulk { 300 } else { 20 })
                .map(|number| {
                    let key = if number % 17 == 0 { "bad" } else { "good" };
                    format!("('{}', 1, '[{{\"type\": \"upload\", \"key\": \"{key}{number}\"}}, {{\"key\": \"{key}x{number}\", \"assetId\": 5}}]')", application.lesson(number))
                })
                .collect();
            session.run(&format!(
                "INSERT INTO lesson (id, course_id, videos) VALUES {}",
                rows.join(", ")
            ));
            let bad = rows.iter().filter(|row| row.contains("bad")).count() as i64;
            assert_eq!(
                session.number("SELECT count(*) FROM lesson WHERE NOT videos -> 0 ? 'assetId' AND videos #> '{1,assetId}' = '5' AND videos::text LIKE '%bad%'"),
                bad,
                "they are as they were written"
            );
            assert_eq!(
                session.number("SELECT count(DISTINCT target_id) FROM asset_usages"),
                rows.len() as i64 - bad
            );
            assert_eq!(
                session.number("SELECT count(*) FROM backfill_decisions WHERE outcome = 'failed' AND reason = '23514'"),
                bad
            );
            session.run("ALTER TABLE assets DROP CONSTRAINT refused");
            session.run("SELECT * FROM backfill_lesson_assets(execute => true)");
            assert_consistent(&mut session);
        }
    });
}

#[test]
fn a_broken_installation_does_not_fail_the_application() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        application.add_uploads(&mut session, 1, 3);
        session.run("ALTER TABLE assets RENAME TO elsewhere");
        application.add_uploads(&mut session, 4, 5);
        assert!(!session.take_warnings().is_empty(), "somebody should know");
        session.run("UPDATE lesson SET videos = '[]'; DELETE FROM lesson; TRUNCATE lesson; ALTER TABLE elsewhere RENAME TO assets");
        application.add_uploads(&mut session, 6, 7);
        session.run("ALTER TABLE asset_usages DROP COLUMN slot_key CASCADE");
        application.add_uploads(&mut session, 8, 9);
        session.run("DROP TABLE asset_usages, assets");
        application.add_uploads(&mut session, 10, 11);
        assert_eq!(session.number("SELECT count(*) FROM lesson"), 6);
    });
}

#[test]
fn they_work_for_a_role_without_rights_under_any_search_path() {
    each_server(|server| {
        let (database, mut session, application) = attached(server);
        let owner = server.role(&database);
        let writer = server.role(&database);
        session.run(&format!(
            "ALTER TABLE lesson OWNER TO {0}; ALTER TABLE assets OWNER TO {0}; ALTER TABLE asset_usages OWNER TO {0};
             GRANT SELECT ON course, \"group\" TO {0}; GRANT SELECT, INSERT, UPDATE, DELETE ON lesson TO {1}",
            owner.name, writer.name
        ));
        let mut client = database.session_as(&writer);
        client.run("SET search_path = ''");
        let row = |number: u32| {
            format!(
                "INSERT INTO public.lesson (id, course_id, videos) VALUES ('{}', 1, '[{{\"type\": \"upload\", \"key\": \"w{number}\"}}]')",
                application.lesson(number)
            )
        };
        client.run(&row(1));
        client.run("UPDATE public.lesson SET videos = videos || '[{\"link\": \"https://vimeo.com/76979871\"}]'");
        client.fails("42501", "SELECT FROM public.assets");
        assert_eq!(client.text("SELECT current_user::text"), writer.name);
        assert_consistent(&mut session);
        // operators and functions of somebody else's first on the search_path
        session.run(
            "CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC;
             CREATE FUNCTION hostile.never(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile as %', current_user; END $$;
             CREATE FUNCTION hostile.never(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile as %', current_user; END $$;
             CREATE FUNCTION hostile.never(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile as %', current_user; END $$;
             CREATE FUNCTION hostile.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile as %', current_user; END $$;
             CREATE OPERATOR hostile.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = hostile.never);
             CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.never);
             CREATE OPERATOR hostile.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.never)",
        );
        client.run("SET search_path = hostile, pg_catalog");
        client.run(&row(2));
        client.run("UPDATE public.lesson SET course_id = 2");
        client.run("DELETE FROM public.lesson WHERE videos @> '[{\"key\": \"w1\"}]'");
        session.run("DROP SCHEMA hostile CASCADE");
        assert_consistent(&mut session);
        assert_eq!(usages(&mut session).len(), 1);
    });
}

#[test]
fn savepoints_take_everything_back() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        application.add_uploads(&mut session, 1, 2);
        let before = contents(&mut session);
        session.run("BEGIN; SAVEPOINT s");
        application.add_uploads(&mut session, 3, 50);
        session
            .run("UPDATE lesson SET videos = videos || '[{\"type\": \"upload\", \"key\": \"again\"}]'; ROLLBACK TO s");
        application.add_lesson(
            &mut session,
            3,
            r#"[{"type": "upload", "key": "k3"}, {"type": "upload", "key": "again"}]"#,
        );
        session.run("SAVEPOINT t; DELETE FROM lesson; ROLLBACK TO t; COMMIT");
        assert_consistent(&mut session);
        assert_eq!(usages(&mut session).len(), 4);
        session.run(&format!("DELETE FROM lesson WHERE id = '{}'; DELETE FROM assets WHERE canonical_key IN ('upload:k3', 'upload:again')", application.lesson(3)));
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn the_users_own_triggers_may_write_lessons_meanwhile() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        session.run(
            "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE lesson SET videos = videos || '[{\"type\": \"upload\", \"key\": \"nested\"}]' WHERE id = NEW.id;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER after_insert AFTER INSERT ON lesson FOR EACH ROW EXECUTE FUNCTION again();
             CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.documents := '[{\"key\": \"late\"}]';
                 RETURN NEW;
             END $$;
             CREATE TRIGGER zz_last BEFORE INSERT ON lesson FOR EACH ROW EXECUTE FUNCTION rewrite()",
        );
        application.add_uploads(&mut session, 1, 3);
        session.run(
            "INSERT INTO lesson (id, course_id, videos) SELECT ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1, jsonb_build_array(jsonb_build_object('type', 'upload', 'key', 'u' || n)) FROM generate_series(100, 200) n"
        );
        assert_eq!(usages(&mut session).len(), 104 * 3);
        assert_consistent(&mut session);
    });
}

#[test]
fn partitions_have_them_too() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        Application::default().create_lesson_side(&mut session);
        session.run(
            "DROP TABLE lesson;
             CREATE TABLE lesson (id int PRIMARY KEY, course_id int, videos jsonb, documents jsonb) PARTITION BY RANGE (id);
             CREATE TABLE lesson_1 PARTITION OF lesson FOR VALUES FROM (0) TO (1000);
             CREATE TABLE lesson_2 (documents jsonb, videos jsonb, course_id int, id int PRIMARY KEY);
             ALTER TABLE lesson ATTACH PARTITION lesson_2 FOR VALUES FROM (1000) TO (3000);
             SELECT * FROM create_asset_tables()",
        );
        assert_eq!(session.rows(ATTACH).len(), 13);
        assert!(session.rows(ATTACH).is_empty());
        session.run(
            "INSERT INTO lesson SELECT n, 1, jsonb_build_array(jsonb_build_object('type', 'upload', 'key', 'p' || n)) FROM generate_series(900, 1100) n;
             INSERT INTO lesson_2 (id, course_id, videos) SELECT n, 1, jsonb_build_array(jsonb_build_object('type', 'upload', 'key', 'q' || n)) FROM generate_series(2000, 2100) n;
             UPDATE lesson SET id = id + 50 WHERE id BETWEEN 960 AND 990;
             UPDATE lesson SET videos = videos || '[{\"type\": \"upload\", \"key\": \"more\"}]' WHERE id > 1090;
             DELETE FROM lesson_1 WHERE id < 910"
                .replace("UPDATE lesson SET id = id + 50 WHERE id BETWEEN 960 AND 990", "UPDATE lesson SET id = id + 600 WHERE id BETWEEN 960 AND 990")
                .as_str(),
        );
        assert_consistent(&mut session);
        session.run("SELECT * FROM detach_lesson_triggers(true)");
        assert_eq!(
            session.number("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'media_assets_lesson_%'"),
            0
        );
    });
}

#[test]
fn two_sessions_with_equal_new_media_make_one_asset() {
    each_server(|server| {
        let (database, mut session, application) = attached(server);
        let mut first = database.session();
        let mut second = database.session();
        let pid = second.process_id();
        first.run("BEGIN");
        application.add_lesson(&mut first, 1, r#"[{"type": "upload", "key": "same"}]"#);
        let other = application.clone();
        let waiting = thread::spawn(move || other.add_lesson(&mut second, 2, r#"[{"type": "upload", "key": "same"}]"#));
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
        ));
        first.run("COMMIT");
        waiting.join().expect("the second one lands");
        assert_eq!(session.number("SELECT count(*) FROM assets"), 1);
        assert_consistent(&mut session);
        // the application's own lock_timeout is its own
        first.run("BEGIN");
        application.add_lesson(&mut first, 3, r#"[{"type": "upload", "key": "held"}]"#);
        session.fails("55P03", &format!("SET lock_timeout = '100ms'; INSERT INTO lesson (id, course_id, videos) VALUES ('{}', 1, '[{{\"type\": \"upload\", \"key\": \"held\"}}]')", application.lesson(4)));
        session.fails("57014", &format!("SET lock_timeout = 0; SET statement_timeout = '100ms'; INSERT INTO lesson (id, course_id, videos) VALUES ('{}', 1, '[{{\"type\": \"upload\", \"key\": \"held\"}}]')", application.lesson(4)));
        first.run("ROLLBACK");
        session.run("RESET statement_timeout");
        assert_consistent(&mut session);
    });
}

#[test]
fn runs_and_live_writes_converge() {
    each_server(|server| {
        let (database, mut session, application) = attached(server);
        session.run("SELECT * FROM detach_lesson_triggers(true)");
        application.add_uploads(&mut session, 1, 400);
        session.run(ATTACH);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..3u32 {
                let (mut client, application, stop) = (database.session(), application.clone(), &stop);
                scope.spawn(move || {
                    let mut n = writer;
                    while !stop.load(Ordering::Relaxed) {
                        n = n.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                        let id = application.lesson(1 + (n >> 8) % 400);
                        let sql = match (n >> 20) % 5 {
                            0 => format!("UPDATE lesson SET videos = videos || '[{{\"type\": \"upload\", \"key\": \"w{}\"}}]' WHERE id = '{id}'", n % 50),
                            1 => format!("UPDATE lesson SET videos = videos - 0 WHERE id = '{id}'"),
                            2 => format!("UPDATE lesson SET course_id = {} WHERE id = '{id}'", 1 + n % 4),
                            3 => format!("DELETE FROM lesson WHERE id = '{id}'"),
                            _ => format!("INSERT INTO lesson (id, course_id, documents) VALUES ('{id}', 1, '[{{\"key\": \"w{}\"}}]') ON CONFLICT (id) DO UPDATE SET documents = excluded.documents", n % 50),
                        };
                        if let Err(error) = client.try_rows(&sql) {
                            assert_eq!(error.code().code(), "40P01", "{}", media_assets_tests::describe(&error));
                        }
                    }
                });
            }
            for _ in 0..8 {
                // a run yields to the application, and is made again
                let _ = session.try_counters("SELECT * FROM backfill_lesson_assets(50, true)");
            }
            stop.store(true, Ordering::Relaxed);
        });
        session.run("SELECT * FROM backfill_lesson_assets(execute => true)");
        assert_consistent(&mut session);
        session
            .counters("SELECT * FROM backfill_lesson_assets()")
            .expect_no_work();
    });
}

#[test]
fn the_engines_own_writes_do_not_fire_them() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        session.run("SELECT * FROM detach_lesson_triggers(true)");
        application.add_uploads(&mut session, 1, 50);
        application.add_lesson(&mut session, 60, "[null]");
        session.run(ATTACH);
        let counters = session.counters("SELECT * FROM backfill_lesson_assets(execute => true)");
        counters.expect(&[("assets_created", 50), ("usages_created", 50), ("errors", 0)]);
        assert_eq!(
            session.number("SELECT count(*) FROM backfill_decisions WHERE run_id IS NULL"),
            0
        );
        assert_consistent(&mut session);
    });
}

#[test]
fn a_trigger_that_somebody_made_by_hand_writes_only_what_the_owner_owns() {
    each_server(|server| {
        let (database, mut session, application) = attached(server);
        let owner = server.role(&database);
        let other = server.role(&database);
        // tables of another role, whose own triggers would run with the rights of the lesson table's owner
        session.run(&format!(
            "SELECT * FROM detach_lesson_triggers(true);
             ALTER TABLE lesson OWNER TO {0}; ALTER TABLE assets OWNER TO {1}; ALTER TABLE asset_usages OWNER TO {1};
             GRANT SELECT ON course, \"group\" TO {0};
             GRANT ALL ON assets, asset_usages TO {0}; GRANT TRIGGER ON lesson TO {1}",
            owner.name, other.name
        ));
        database.session_as(&other).run(
            "CREATE TRIGGER own BEFORE INSERT ON lesson FOR EACH ROW EXECUTE FUNCTION lesson_before_row(
                 'public.course', 'public.\"group\"', 'public.assets', 'public.asset_usages')",
        );
        database.session_as(&owner).run(&format!(
            "INSERT INTO lesson (id, course_id, videos) VALUES ('{}', 1, '[{{\"type\": \"upload\", \"key\": \"w\"}}]')",
            application.lesson(77)
        ));
        assert_eq!(session.number("SELECT count(*) FROM assets"), 0);
        assert_eq!(
            session.number(
                "SELECT count(*) FROM lesson WHERE videos @> '[{\"key\": \"w\"}]' AND videos -> 0 -> 'assetId' IS NULL"
            ),
            1,
            "the write itself goes well"
        );
        // the same trigger on tables of the owner's does write
        session.run(&format!(
            "ALTER TABLE assets OWNER TO {0}; ALTER TABLE asset_usages OWNER TO {0}",
            owner.name
        ));
        database.session_as(&owner).run(&format!(
            "INSERT INTO lesson (id, course_id, videos) VALUES ('{}', 1, '[{{\"type\": \"upload\", \"key\": \"x\"}}]')",
            application.lesson(78)
        ));
        assert_eq!(session.number("SELECT count(*) FROM assets"), 1);
    });
}
