//! The lesson triggers in statements of many rows, which they settle together.

use media_assets_tests::application::{assert_consistent, assert_verified, attached};
use media_assets_tests::{each_server, Application, Server, Session};

#[test]
fn a_bulk_write_is_right_in_every_row() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        // keys that exist, keys that several rows share, odd rows in between, and lessons of two organizations
        application.add_asset(&mut session, 1, 1, "b/40");
        session.run(
            "INSERT INTO lesson (id, course_id, videos, documents)
             SELECT ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1 + n % 2,
                    CASE WHEN n % 50 = 0 THEN '5' ELSE jsonb_build_array(jsonb_build_object('type', 'upload', 'key', 'b/' || n / 3), NULL) END,
                    jsonb_build_array(jsonb_build_object('key', 'd/' || n, 'assetId', CASE WHEN n % 7 = 0 THEN 'stale' END))
             FROM generate_series(1, 2500) n",
        );
        assert_consistent(&mut session);
        session
            .counters("SELECT * FROM backfill_lesson_assets()")
            .expect_no_work();
        session.run("UPDATE lesson SET videos = jsonb_build_array(jsonb_build_object('type', 'upload', 'key', 'shared')), course_id = 3 - course_id");
        assert_consistent(&mut session);
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key = 'upload:shared'"),
            2
        );
        session.run("DELETE FROM lesson WHERE course_id = 1");
        assert_consistent(&mut session);
        session
            .counters("SELECT * FROM backfill_lesson_assets()")
            .expect_no_work();
    });
}

type Rows = Vec<Vec<Option<String>>>;

/// Usages that somebody has spoiled by hand, for every eleventh lesson another way.
const SPOIL: &str = r#"
DELETE FROM asset_usages WHERE right(target_id, 3)::int % 11 = 1 AND position = 0;
UPDATE asset_usages SET slot_key = 'odd' WHERE right(target_id, 3)::int % 11 = 2 AND position = 1;
UPDATE asset_usages SET position = NULL WHERE right(target_id, 3)::int % 11 = 3 AND position = 1;
UPDATE asset_usages u SET asset_id = (SELECT a.id FROM assets a WHERE a.organization_id = u.organization_id AND a.id <> u.asset_id
                                      ORDER BY a.canonical_key LIMIT 1)
WHERE right(target_id, 3)::int % 11 = 4 AND slot_type = 'lesson_document';
INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, "position")
SELECT organization_id, asset_id, target_type, target_id, slot_type, 7 FROM asset_usages
WHERE right(target_id, 3)::int % 11 = 5 AND slot_type = 'lesson_document';
INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, "position")
SELECT organization_id, asset_id, 'page', target_id, slot_type, 8 FROM asset_usages
WHERE right(target_id, 3)::int % 11 = 6 AND slot_type = 'lesson_document';
DELETE FROM asset_usages WHERE right(target_id, 3)::int % 11 = 7;"#;

/// What an application does to the media, for every ninth lesson another way.
const TOUCH: &str = r#"UPDATE lesson SET title = title || '.', videos = CASE right(id::text, 3)::int % 9
  WHEN 0 THEN jsonb_set(videos, '{0,fileName}', '"Renamed.mp4"')
  WHEN 1 THEN videos - 0
  WHEN 2 THEN videos || (videos -> 0)
  WHEN 3 THEN jsonb_set(videos, '{1,link}', '"https://example.org/another.mp4"')
  WHEN 4 THEN jsonb_set(jsonb_set(videos, '{0,assetId}', '"gone"'), '{0,size}', '6')
  WHEN 5 THEN NULL
  WHEN 6 THEN 'null'
  WHEN 7 THEN jsonb_build_array(videos -> 1, videos -> 0)
  ELSE jsonb_set(videos, '{0}', '"no object"') END"#;

/// Where everything is after the same writes, in one statement or with one statement for each lesson.
fn touched(server: &Server, at_once: bool) -> (Rows, Rows) {
    let (_database, mut session, application) = attached(server);
    for number in 1..=198 {
        application.add_lesson_of(
            &mut session,
            number,
            1 + number % 2,
            &format!(
                r#"[{{"type": "upload", "key": "v{number}.mp4", "size": 5}}, {{"type": "generic", "link": "https://example.org/{}.mp4"}}]"#,
                number % 20
            ),
            &format!(r#"[{{"key": "d{}.pdf", "name": "Notes"}}]"#, number % 50),
        );
    }
    session.run(SPOIL);
    if at_once {
        session.run(TOUCH);
    } else {
        session.run(&format!(
            "DO $$ DECLARE one lesson.id%TYPE; BEGIN FOR one IN SELECT id FROM lesson ORDER BY id LOOP {TOUCH} WHERE id = one; END LOOP; END $$"
        ));
    }
    assert_consistent(&mut session);
    (
        session.rows(
            "SELECT right(u.target_id, 3), u.target_type, u.slot_type, u.position, u.slot_key, a.canonical_key, right(u.organization_id::text, 1)
             FROM asset_usages u JOIN assets a ON a.id = u.asset_id ORDER BY 1, 2, 3, 4, 5, 6, 7",
        ),
        session.rows("SELECT canonical_key, right(organization_id::text, 1) FROM assets ORDER BY 1, 2"),
    )
}

#[test]
fn a_bulk_update_does_what_small_ones_do() {
    each_server(|server| {
        let (together, assets_together) = touched(server, true);
        let (apart, assets_apart) = touched(server, false);
        assert!(together.len() > 400);
        assert_eq!(assets_together, assets_apart);
        for (one, other) in together.iter().zip(&apart) {
            assert_eq!(one, other);
        }
        assert_eq!(together.len(), apart.len());
    });
}

#[test]
fn a_bulk_update_that_leaves_the_media_as_they_are_writes_no_usage() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        fill(&mut session, &application);
        session.run("CREATE TABLE written (what text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.written VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NULL; END$$");
        for table in ["assets", "asset_usages"] {
            session.run(&format!(
                "CREATE TRIGGER n AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION note()"
            ));
        }
        session.run(r#"UPDATE lesson SET videos = jsonb_set(videos, '{0,fileName}', '"Renamed.mp4"')"#);
        assert_eq!(session.number("SELECT count(*) FROM written"), 0);
        // a usage that has gone comes back, in a statement of many rows and in one of a few
        for rows in [150, 10] {
            session.run(
                "DELETE FROM asset_usages WHERE position = 0 AND right(target_id, 3)::int IN (3, 7); TRUNCATE written",
            );
            session.run(&format!(
                r#"UPDATE lesson SET videos = jsonb_set(videos, '{{0,fileName}}', '"Again {rows}.mp4"') WHERE right(id::text, 3)::int <= {rows}"#
            ));
            assert_eq!(
                session.number("SELECT count(*) FROM written WHERE what = 'asset_usages INSERT'"),
                4
            );
            assert_eq!(session.number("SELECT count(*) FROM written"), 4);
            assert_verified(&mut session);
        }
    });
}

/// Lessons with one video and one document.
fn fill(session: &mut Session, application: &Application) {
    for number in 1..=150 {
        application.add_lesson_of(
            session,
            number,
            1,
            &format!(r#"[{{"type": "upload", "key": "v{number}.mp4", "fileName": "V.mp4"}}]"#),
            &format!(r#"[{{"key": "d{number}.pdf"}}]"#),
        );
    }
}

#[test]
fn a_lesson_whose_group_has_moved_never_keeps_another_organizations_asset() {
    each_server(|server| {
        for rows in [10, 150] {
            let (_database, mut session, application) = attached(server);
            fill(&mut session, &application);
            session.run("UPDATE \"group\" SET organization_id = (SELECT organization_id FROM \"group\" WHERE id = 2) WHERE id = 1");
            session.run(&format!(
                r#"UPDATE lesson SET videos = jsonb_set(videos, '{{0,fileName}}', '"Renamed.mp4"') WHERE right(id::text, 3)::int <= {rows}"#
            ));
            assert_eq!(
                session.number("SELECT count(*) FROM asset_usages u JOIN assets a ON a.id = u.asset_id WHERE a.organization_id <> u.organization_id"),
                0
            );
            assert_eq!(
                session.number("SELECT count(*) FROM asset_usages u JOIN \"group\" g ON g.organization_id = u.organization_id WHERE g.id = 2"),
                2 * rows
            );
        }
    });
}

#[test]
fn a_plan_of_an_empty_table_does_not_become_slow() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        // on an empty table this index looks as good as the unique one
        session.run("CREATE INDEX a_foreign_key ON assets (organization_id)");
        let write = |session: &mut Session, number: u32| {
            let insert = format!(
                "INSERT INTO lesson (id, course_id, videos) VALUES ('{}', 1, '[{{\"type\": \"upload\", \"key\": \"old/{number}\"}}]')",
                application.lesson(number)
            );
            session.blocks(&insert)
        };
        write(&mut session, 1);
        session.run(
            "INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
             SELECT gen_random_uuid(), (SELECT organization_id FROM \"group\" WHERE id = 1), 'video', 'upload', 's3', 'old/' || n, false, 'active', '{}'
             FROM generate_series(2, 20000) n",
        );
        // one look-up by the wrong index would read all of the organization's assets
        for number in [777, 7_777, 19_999] {
            let blocks = write(&mut session, number);
            assert!(blocks < 150, "{blocks} blocks");
        }
        assert_eq!(session.number("SELECT count(*) FROM assets"), 20_000, "they were found");
    });
}

#[test]
fn a_foreign_key_that_speaks_at_commit_vouches_for_nothing() {
    each_server(|server| {
        let (_database, mut session, application) = attached(server);
        session.run(
            "ALTER TABLE asset_usages DROP CONSTRAINT asset_usages_asset_id_fkey,
             ADD FOREIGN KEY (asset_id) REFERENCES assets DEFERRABLE INITIALLY DEFERRED",
        );
        fill(&mut session, &application);
        // within one transaction: the asset goes, and a lesson that had it is written again
        session.run(
            r#"BEGIN; DELETE FROM assets WHERE canonical_key = 'upload:v7.mp4';
               UPDATE lesson SET videos = jsonb_set(videos, '{0,fileName}', '"Renamed.mp4"'); COMMIT"#,
        );
        assert_consistent(&mut session);
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 300);
    });
}

#[test]
fn ids_of_fixed_length_are_those_of_a_run() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application {
            lesson_id: "char(40)".into(),
            ..Application::default()
        };
        application.create_lesson_side(&mut session);
        session.run("SELECT * FROM create_asset_tables()");
        session
            .run(r#"INSERT INTO lesson (id, course_id, videos) VALUES ('a1', 1, '[{"type": "upload", "key": "k"}]')"#);
        session.run("SELECT * FROM backfill_lesson_assets(500, true); SELECT * FROM attach_lesson_triggers(true)");
        assert_eq!(session.text("SELECT target_id || '|' FROM asset_usages"), "a1|");
        session.run(r#"UPDATE lesson SET videos = videos || '[{"type": "upload", "key": "l"}]'"#);
        assert_eq!(
            session.text("SELECT string_agg(target_id || position, '|' ORDER BY position) FROM asset_usages"),
            "a10|a11"
        );
        session.run("UPDATE lesson SET videos = '[]'");
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 0);
    });
}
