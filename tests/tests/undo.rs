//! What a run did is taken back, row for row and byte for byte.

use media_assets_tests::application::{contents, insert_asset};
use media_assets_tests::random::{fill, scope};
use media_assets_tests::runs::{conflicts, count, dry_undo, execute, last_run, same_work, state, undo, with_lessons};
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, Application, Session};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::SeedableRng;

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

/// Databases on each server, unless `MEDIA_ASSETS_PROPERTY_ROUNDS` asks for more.
fn rounds() -> u64 {
    let asked = std::env::var("MEDIA_ASSETS_PROPERTY_ROUNDS");
    asked.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40)
}

/// The bytes of the lessons' media, which text does not show.
fn media_bytes(session: &mut Session) -> Vec<media_assets_tests::Row> {
    session.rows(
        "SELECT id, encode(jsonb_send(videos), 'hex'), encode(jsonb_send(documents), 'hex'), pg_column_size(videos || '[]'),
                pg_column_size(documents || '[]') FROM lesson ORDER BY id",
    )
}

fn undo_in_transaction(session: &mut Session, run_id: i64) -> media_assets_tests::Counters {
    session.counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
}

#[test]
fn execute_and_undo_leave_every_row_as_it_was() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SET media_assets.progress = off");
        Application::create(&mut session);
        for seed in 0..rounds() {
            let mut random = StdRng::seed_from_u64(seed);
            fill(&mut session, &mut random);
            let filters = scope(&mut random);
            let batch = *[1, 3, 20, 500].choose(&mut random).expect("not empty");
            let about = format!("seed {seed}, batch {batch}{filters}");
            let (before, media) = (contents(&mut session), media_bytes(&mut session));
            let run = session.counters(&format!("SELECT * FROM backfill_lesson_assets({batch}, true{filters})"));
            let run_id = run.get("run_id");
            let undone = undo(&mut session, run_id);
            undone.expect(&[
                ("items_restored", run.get("lesson_items_patched_with_asset_id")),
                ("usages_removed", run.get("usages_created")),
                ("assets_removed", run.get("assets_created")),
                ("already_undone", 0),
                ("conflicts", 0),
                ("errors", 0),
            ]);
            assert_eq!(before, contents(&mut session), "row for row ({about})");
            assert_eq!(media, media_bytes(&mut session), "byte for byte ({about})");

            let again = undo(&mut session, run_id);
            again.expect(&[
                ("values_scanned", undone.get("values_scanned")),
                ("already_undone", undone.get("values_scanned")),
            ]);
            assert_eq!(before, contents(&mut session), "undone twice ({about})");

            // the same by the procedures
            session.run(&format!(
                "CALL run_backfill('lesson_assets', {batch}, true, '{{\"skip_settled\": true}}')"
            ));
            let run_id = last_run(&mut session);
            session.run(&format!(
                "CALL run_backfill('undo', {batch}, true, '{{\"run_id\": {run_id}}}')"
            ));
            assert_eq!(before, contents(&mut session), "undone by the procedure ({about})");
            assert_eq!(
                count(&mut session, "lesson_media_state"),
                0,
                "nothing counts as settled ({about})"
            );
            assert_eq!(
                media,
                media_bytes(&mut session),
                "byte for byte by the procedure ({about})"
            );
        }
    });
}

#[test]
fn stale_ids_of_every_kind_come_back_exactly() {
    let stale = [
        "null",
        "5",
        "1.500",
        "-0.0",
        "1e400",
        "123456789012345678901234567890.10",
        "true",
        "\"\"",
        "\"not a uuid\"",
        "\"quo\\\"te \\\\ \\u00e4 \\n \\ud83d\\ude00\"",
        "[]",
        "{}",
        "[1.10, {\"assetId\": \"x\"}, null]",
        "{\"assetId\": {\"a\": [1.0]}, \"b\": \"c\"}",
        "\"ABCDEF00-0000-4000-8000-00000000ABCD\"",
        "\"abcdef00-0000-4000-8000-00000000abcd\"",
        "\" a0000000-0000-4000-8000-000000000001 \"",
    ];
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 0);
        for (number, value) in (1..).zip(stale) {
            let item = |kind: &str| {
                format!("{{\"zz\": 1.20, \"assetId\": {value}, \"key\": \"{kind}{number}\", \"type\": \"upload\", \"a\": {{\"assetId\": 7}}}}")
            };
            let column = |kind: &str| format!("[7, {}, {{\"assetId\": {value}}}, [], {}]", item(kind), item("both"));
            application.add_lesson_of(&mut session, number, 1, &column("v"), &column("d"));
        }
        // a foreign uuid, in upper case
        application.add_asset(&mut session, 1, 2, "foreign");
        application.add_lesson(
            &mut session,
            90,
            &format!(
                "[{{\"type\": \"upload\", \"key\": \"own\", \"assetId\": \"{}\"}}]",
                application.asset(1).to_uppercase()
            ),
        );
        let (before, media) = (contents(&mut session), media_bytes(&mut session));
        let run = session.counters(EXECUTE);
        run.expect(&[("lesson_items_patched_with_asset_id", 4 * stale.len() as i64 + 1)]);
        assert_ne!(media, media_bytes(&mut session));
        undo(&mut session, run.get("run_id")).expect(&[("conflicts", 0), ("errors", 0)]);
        assert_eq!(before, contents(&mut session));
        assert_eq!(media, media_bytes(&mut session));
    });
}

#[test]
fn a_dry_undo_works_on_a_hot_standby() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 20);
        let run_id = execute(&mut session);
        let here = dry_undo(&mut session, run_id);
        let standby = Standby::of(server);
        let mut reader = standby.session(&database);
        let there = reader.counters(&format!("SELECT * FROM undo_backfill({run_id})"));
        assert_eq!(here, there);
        assert_eq!(reader.rows(&format!("SELECT FROM explain_undo({run_id})")).len(), 60);
        reader.text(&format!("SELECT backfill_report({run_id})"));
        assert_eq!(state(&mut reader, run_id), "finished");
        reader.fails("25006", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
    });
}

#[test]
fn keys_that_a_run_gave_are_taken_back_and_wrong_ones_return() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 0);
        // 1 and 2 have each other's key, 3 has a key of nobody's, 4 has none, 5 is a twin of 4, 6 is right, 7 has no fields for one
        for (number, key) in [
            (1, "one"),
            (2, "two"),
            (3, "three"),
            (4, "four"),
            (5, "four"),
            (6, "six"),
            (7, ""),
        ] {
            session.run("ALTER TABLE assets DISABLE TRIGGER USER");
            application.add_asset(&mut session, number, 1, key);
        }
        let stored = [
            (1, "upload:two"),
            (2, "upload:one"),
            (3, "upload:wrong"),
            (6, "upload:six"),
            (7, "upload:ghost"),
        ];
        for (number, key) in stored {
            session.run(&format!("UPDATE assets SET canonical_key = NULL WHERE id = '{0}'; UPDATE assets SET canonical_key = '{key}' WHERE id = '{0}'", application.asset(number)));
        }
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let before = contents(&mut session);
        let run = session.counters("SELECT * FROM backfill_asset_keys(2, true, true)");
        run.expect(&[("keyed", 4), ("duplicates", 1)]);
        let keyed = contents(&mut session);
        undo(&mut session, run.get("run_id")).expect(&[("keys_restored", 8), ("conflicts", 0), ("errors", 0)]);
        assert_eq!(before, contents(&mut session));
        assert_eq!(
            session.text("SELECT phases FROM backfill_runs ORDER BY run_id DESC LIMIT 1"),
            "{keys_set,keys_released}"
        );

        session.run("CALL run_backfill('asset_keys', 2, true, '{\"refresh\": true}')");
        assert_eq!(keyed, contents(&mut session));
        let run_id = last_run(&mut session);
        session.run(&format!(
            "CALL run_backfill('undo', 1, true, '{{\"run_id\": {run_id}}}')"
        ));
        assert_eq!(before, contents(&mut session));

        // a key that was edited, an asset that has gone, and a key that somebody else has by now
        let run_id = session
            .counters("SELECT * FROM backfill_asset_keys(2, true, true)")
            .get("run_id");
        session.run(&format!(
            "UPDATE assets SET storage_key = 'four and more' WHERE id = '{}'; DELETE FROM assets WHERE id = '{}';
             {}; UPDATE assets SET storage_key = 'one again' WHERE id = '{}'",
            application.asset(4),
            application.asset(7),
            insert_asset(&application.asset(20), &application.organization(1), "wrong"),
            application.asset(1)
        ));
        let wanted = [("asset_gone", 1), ("key_changed", 3), ("key_taken", 1)];
        assert_eq!(
            conflicts(&mut session, run_id),
            wanted.map(|(reason, count)| (reason.to_owned(), count))
        );
        undo(&mut session, run_id).expect(&[("keys_restored", 3), ("conflicts", 5), ("errors", 0)]);
    });
}

#[test]
fn keys_of_the_first_phase_go_back_when_rows_are_edited_meanwhile() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 3);
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        for number in 1..=5 {
            application.add_asset(&mut session, number, 1, &format!("k{number}"));
        }
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let before = contents(&mut session);
        let run_id = execute(&mut session);
        assert_eq!(session.number("SELECT count(canonical_key) FROM assets"), 5);
        session.run(&format!(
            "UPDATE assets SET storage_key = 'edited' WHERE id = '{}'",
            application.asset(5)
        ));
        undo(&mut session, run_id).expect(&[
            ("keys_restored", 4),
            ("conflicts", 1),
            ("usages_removed", 3),
            ("assets_removed", 0),
        ]);
        assert_eq!(
            session.text("SELECT canonical_key FROM assets WHERE canonical_key IS NOT NULL"),
            "upload:edited"
        );
        session.run(
            "ALTER TABLE assets DISABLE TRIGGER USER;
             UPDATE assets SET storage_key = 'k5', canonical_key = NULL WHERE storage_key = 'edited'",
        );
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn ids_of_other_types_and_tables_behind_views() {
    each_server(|server| {
        for (lesson_id, usage_id) in [
            ("text", "uuid NOT NULL PRIMARY KEY"),
            ("bigint", "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
            ("uuid", "bigserial PRIMARY KEY"),
            ("text", "text PRIMARY KEY DEFAULT md5(random()::text)"),
        ] {
            let database = server.database();
            let mut session = database.session();
            session.run("SET media_assets.progress = off; CREATE SCHEMA real; SET search_path = real, public");
            let application = Application {
                lesson_id: lesson_id.into(),
                organization_id: "bigint".into(),
            };
            application.create_lesson_side(&mut session);
            session.run("SELECT * FROM create_asset_tables()");
            session.run(&format!(
                "ALTER TABLE asset_usages DROP CONSTRAINT asset_usages_pkey; ALTER TABLE asset_usages DROP COLUMN id; ALTER TABLE asset_usages ADD COLUMN the_id {usage_id};
                 ALTER TABLE assets RENAME id TO the_id; ALTER TABLE assets RENAME TO real_assets; ALTER TABLE asset_usages RENAME asset_id TO of_asset; ALTER TABLE asset_usages RENAME TO real_usages;
                 ALTER TABLE lesson RENAME id TO lesson_number; ALTER TABLE lesson RENAME TO real_lesson;
                 CREATE TABLE cover (asset uuid REFERENCES real_assets ON DELETE CASCADE);
                 CREATE VIEW public.lesson AS SELECT lesson_number AS id, course_id, title, videos, documents, updated_at FROM real_lesson;
                 CREATE VIEW public.assets AS SELECT the_id AS id, organization_id, kind, provider, storage_provider, storage_key, source_url, mime_type, byte_size,
                     title, description, thumbnail_url, duration_seconds, aspect_ratio, is_external, status, metadata, canonical_key, created_at, updated_at FROM real_assets;
                 CREATE VIEW public.asset_usages AS SELECT the_id AS id, organization_id, of_asset AS asset_id, target_type, target_id, slot_type, slot_key, position FROM real_usages;
                 SET search_path = public, real"
            ));
            for number in 1..=30 {
                application.add_lesson_of(
                    &mut session,
                    number,
                    1 + number % 2,
                    &format!(
                        r#"[{{"type": "upload", "key": "k{}", "assetId": {number}}}]"#,
                        number / 2
                    ),
                    "[{\"key\": \"shared\"}]",
                );
            }
            let about = format!("{lesson_id} × {usage_id}");
            let before = contents(&mut session);
            let run = session.counters("SELECT * FROM backfill_lesson_assets(7, true)");
            run.expect(&[("errors", 0), ("usages_created", 60)]);
            let run_id = run.get("run_id");
            session
                .run("INSERT INTO cover SELECT id FROM assets WHERE storage_key = 'k3'; SET search_path = pg_catalog");
            let undone = session.counters(&format!("SELECT * FROM public.undo_backfill({run_id})"));
            session.run("SET search_path = public, real");
            undone.expect(&[("items_restored", 60), ("usages_removed", 60), ("conflicts", 2)]);
            assert_eq!(same_work(&undo(&mut session, run_id)), same_work(&undone), "{about}");
            session.run("TRUNCATE cover");
            undo(&mut session, run_id).expect(&[("assets_removed", 2)]);
            assert_eq!(before, contents(&mut session), "{about}");
        }
    });
}

#[test]
fn runs_one_after_the_other_are_undone_one_after_the_other() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 10);
        let start = contents(&mut session);
        let first = execute(&mut session);
        let between_first = contents(&mut session);
        application.add_lesson(
            &mut session,
            20,
            r#"[{"type": "upload", "key": "k1"}, {"type": "upload", "key": "new"}]"#,
        );
        session.run(&format!(
            "UPDATE lesson SET videos = videos #- '{{0,assetId}}' WHERE id = '{}'",
            application.lesson(2)
        ));
        let between = contents(&mut session);
        let second = execute(&mut session);
        // the first one's asset of k1 is in use by the second one's lesson; the item of lesson 2 is the second one's now
        session.run("BEGIN");
        undo_in_transaction(&mut session, first).expect(&[("conflicts", 1), ("assets_removed", 9)]);
        session.run("ROLLBACK");
        undo(&mut session, second).expect(&[
            ("items_restored", 3),
            ("usages_removed", 2),
            ("assets_removed", 1),
            ("conflicts", 0),
        ]);
        assert_eq!(between, contents(&mut session));
        session.run(&format!("DELETE FROM lesson WHERE id = '{}'", application.lesson(20)));
        undo(&mut session, first).expect(&[("items_restored", 9), ("already_undone", 1), ("conflicts", 0)]);
        assert_eq!(start, contents(&mut session));
        assert_ne!(start, between_first);
    });
}

#[test]
fn a_run_and_its_undo_in_one_transaction() {
    each_server(|server| {
        let (_database, mut session, _) = with_lessons(server, 10);
        let before = contents(&mut session);
        session.run("BEGIN");
        let run_id = execute(&mut session);
        undo_in_transaction(&mut session, run_id).expect(&[
            ("items_restored", 10),
            ("usages_removed", 10),
            ("assets_removed", 10),
        ]);
        session.run("COMMIT");
        assert_eq!(before, contents(&mut session));
    });
}
