//! JSON that no application should have written.

use media_assets_tests::application::{assert_items_are_settled, assert_verified};
use media_assets_tests::{each_server, literal, Application, Session};
use serde_json::Value;

const DRY: &str = "SELECT * FROM backfill_lesson_assets()";
const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

/// Runs over lessons whose items all are eligible; asserts that each row keeps all but its assetIds.
fn assert_only_asset_ids_change(session: &mut Session) {
    session.run("CREATE TEMP TABLE before AS SELECT * FROM lesson");
    let dry = session.counters(DRY);
    let executed = session.counters(EXECUTE);
    assert_eq!(dry, executed);
    executed.expect(&[("errors", 0)]);
    let without_ids = "(SELECT string_agg(CASE jsonb_typeof(e) WHEN 'object' THEN (e - 'assetId')::text ELSE e::text END, E'\\n' ORDER BY n)
                        FROM jsonb_array_elements(CASE jsonb_typeof(items) WHEN 'array' THEN items ELSE jsonb_build_array(items) END) WITH ORDINALITY x (e, n))";
    for column in ["videos", "documents"] {
        let changed = session.rows(&format!(
            "SELECT l.id FROM (SELECT id, {new} AS text, jsonb_typeof({column}) AS type FROM (SELECT id, {column} AS items, {column} FROM lesson) q) l
             JOIN (SELECT id, {new} AS text, jsonb_typeof({column}) AS type FROM (SELECT id, {column} AS items, {column} FROM before) q) b USING (id)
             WHERE (l.text, l.type) IS DISTINCT FROM (b.text, b.type)",
            new = without_ids
        ));
        assert!(changed.is_empty(), "{column} of {changed:?}");
    }
    session.run("DROP TABLE before");
    assert_items_are_settled(session);
    assert_verified(session);
    session.counters(EXECUTE).expect_no_work();
}

/// The deepest nesting of arrays, of a few, that jsonb itself takes.
fn deepest(session: &mut Session) -> u32 {
    [10_000, 6_000, 3_000, 1_000]
        .into_iter()
        .find(|depth| {
            session
                .try_rows(&format!(
                    "SELECT length((repeat('[', {depth}) || repeat(']', {depth}))::jsonb::text)"
                ))
                .is_ok()
        })
        .expect("a thousand at least")
}

#[test]
fn deep_nesting() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let depth = deepest(&mut session);
        assert!(depth >= 3_000, "{depth}");
        let arrays = format!("{}{}", "[".repeat(depth as usize - 10), "]".repeat(depth as usize - 10));
        let half = depth as usize / 2 - 10;
        let objects = format!("{}1{}", r#"{"a":"#.repeat(half), "}".repeat(half));
        application.add_lesson(&mut session, 1, &format!(r#"[{{"key": "k1", "deep": {arrays}}}]"#));
        application.add_lesson(
            &mut session,
            2,
            &format!(r#"[{{"key": "k2", "metadata": {{"deep": {arrays}}}}}]"#),
        );
        application.add_lesson(&mut session, 3, &format!(r#"[{{"key": "k3", "metadata": {objects}}}]"#));
        application.add_lesson(&mut session, 4, &format!(r#"[{{"key": "k4"}}, {arrays}]"#));
        application.add_lesson(
            &mut session,
            5,
            &format!(r#"[{{"key": {arrays}, "link": {arrays}, "type": {arrays}}}, {{"key": "k5"}}]"#),
        );
        application.add_lesson(&mut session, 6, &arrays);
        application.add_lesson_of(
            &mut session,
            7,
            1,
            &objects,
            &format!(r#"[{{"key": "k7", "assetId": {arrays}}}]"#),
        );
        application.add_uploads(&mut session, 8, 10);
        // a depth that jsonb takes may be one that reading it again as text does not; it costs no other lesson
        assert_only_asset_ids_change(&mut session);
        for number in [2, 3] {
            let equal = session.is_true(&format!(
                "SELECT a.metadata::text = (l.videos #> '{{0,metadata}}')::text FROM lesson l JOIN assets a ON a.storage_key = 'k{number}' WHERE l.id = '{}'",
                application.lesson(number)
            ));
            assert!(equal, "metadata of k{number}");
        }
        session.run("SELECT count(*) FROM explain_lesson_assets()");
    });
}

#[test]
fn ten_megabyte_items() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 2, 5);
        session.run(&format!(
            "INSERT INTO lesson (id, course_id, videos) VALUES
             ('{}', 1, jsonb_build_array(jsonb_build_object('key', 'big', 'metadata', jsonb_build_object('text', repeat('0123456789', 1000000))))),
             ('{}', 1, jsonb_build_array(jsonb_build_object('key', 'many', 'metadata', (SELECT jsonb_object_agg('k' || n, n + 0.10) FROM generate_series(1, 300000) n)))),
             ('{}', 1, jsonb_build_array('null', (SELECT jsonb_agg(n) FROM generate_series(1, 1000000) n), jsonb_build_object('key', 'beside')))",
            application.lesson(1),
            application.lesson(6),
            application.lesson(7)
        ));
        assert_only_asset_ids_change(&mut session);
        assert_eq!(
            session.number("SELECT length(metadata ->> 'text') FROM assets WHERE storage_key = 'big'"),
            10_000_000
        );
    });
}

#[test]
fn a_lesson_with_thousands_of_items() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        session.run(&format!(
            "INSERT INTO lesson (id, course_id, videos) SELECT '{}', 1, jsonb_agg(jsonb_build_object('key', 'k' || n % 3000) ORDER BY n) FROM generate_series(0, 4999) n",
            application.lesson(1)
        ));
        session.counters(DRY).expect(&[
            ("media_items_eligible", 5000),
            ("assets_created", 3000),
            ("usages_created", 5000),
        ]);
        assert_only_asset_ids_change(&mut session);
    });
}

#[test]
fn numbers_no_double_can_hold() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let digits = "123456789".repeat(112);
        for (number, value) in (1..).zip([
            "1e400",
            "-1e400",
            "1e-400",
            "1e130000",
            digits.as_str(),
            "0.10000000000000000000000000000000000000000000000000010",
            "-0",
            "1.0",
            "1e2",
            "12345678901234567890",
            "9223372036854775808",
            "1.000000000000000000000000000000000000000000000000000001",
        ]) {
            application.add_lesson(
                &mut session,
                number,
                &format!(
                    r#"[{{"key": "k{number}", "size": {value}, "type": {value}, "n": [{value}], "assetId": {value}, "metadata": {{"duration": {value}, "byteSize": {value}, "n": {value}}}}}]"#
                ),
            );
        }
        assert_only_asset_ids_change(&mut session);
        let changed = session.rows(
            "SELECT storage_key FROM assets a WHERE NOT EXISTS (SELECT FROM lesson l WHERE l.videos #>> '{0,key}' = a.storage_key
             AND (l.videos #> '{0,metadata}')::text = a.metadata::text)",
        );
        assert!(changed.is_empty(), "metadata to the digit: {changed:?}");
        let sizes = session.rows("SELECT storage_key, byte_size::text, duration_seconds::text FROM assets WHERE byte_size IS NOT NULL OR duration_seconds IS NOT NULL ORDER BY length(storage_key), storage_key");
        let row = |key: &str, size: Option<&str>, duration: Option<&str>| {
            [
                Some(key.to_owned()),
                size.map(str::to_owned),
                duration.map(str::to_owned),
            ]
        };
        let zero = Some("0");
        let one = Some("1");
        assert_eq!(
            sizes,
            [
                row("k3", None, zero),
                row("k6", None, zero),
                row("k7", zero, zero),
                row("k8", one, one),
                row("k9", Some("100"), Some("100")),
                row("k12", None, one),
            ]
        );
    });
}

#[test]
fn names_that_mean_something_elsewhere() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_lesson_of(
            &mut session,
            1,
            1,
            r#"[{"__proto__": {"key": "polluted", "assetId": "x"}, "constructor": {"prototype": {}}, "key": "k1", "": "empty", "assetid": "lower",
                 "ASSETID": "upper", "asset_id": "snake", "toString": null, "hasOwnProperty": 1, "metadata": {"__proto__": {"a": 1}, "assetId": "inner", "": {}}},
                {"__proto__": [], "type": "upload"},
                {"key": "k2", "a": {"assetId": "nested"}, "\u0001": 1, "'": 2, "\"": 3, "\\": 4, "{0,assetId}": 5, "$": 6, "ключ": 7, "\ud83d\ude00": 8}]"#,
            r#"[{"__proto__": null, "link": "https://x.test/__proto__"}, {"key": "constructor", "name": "__proto__"}]"#,
        );
        assert_only_asset_ids_change(&mut session);
        session.counters(EXECUTE).expect(&[
            ("media_items_scanned", 5),
            ("media_items_eligible", 4),
            ("skipped_missing_key", 1),
        ]);
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE storage_key = 'polluted'"),
            0
        );
    });
}

/// Fields of an item, and a string's way into each.
const FIELDS: [&str; 18] = [
    r#"{"key": @}"#,
    r#"{"videoKey": @}"#,
    r#"{"type": "upload", "key": "K", "link": @}"#,
    r#"{"type": "external_url", "link": @}"#,
    r#"{"type": "youtube", "link": @}"#,
    r#"{"type": "google_drive", "link": @}"#,
    r#"{"type": @, "key": "K"}"#,
    r#"{"key": "K", "fileName": @}"#,
    r#"{"key": "K", "videoTitle": @}"#,
    r#"{"key": "K", "name": @}"#,
    r#"{"key": "K", "size": @}"#,
    r#"{"key": "K", "assetId": @}"#,
    r#"{"key": "K", "metadata": @}"#,
    r#"{"key": "K", "metadata": {"mimeType": @}}"#,
    r#"{"key": "K", "metadata": {"description": @, "thumbnailUrl": @, "aspectRatio": @}}"#,
    r#"{"key": "K", "metadata": {"duration": @, "byteSize": @}}"#,
    r#"{"key": "K", "metadata": {"title": @, "fileName": @}}"#,
    r#"{"key": "K", @: 1}"#,
];

/// Puts a string into each field of a video and of a document, a lesson each.
fn into_each_field(session: &mut Session, application: &Application, text: &str) {
    let json = Value::from(text).to_string();
    for (number, field) in (1..).zip(FIELDS) {
        // the name of a field is a text of its own, so that two lessons never share a key
        let item = |slot: &str| {
            field
                .replace("\"K\"", &format!("\"k{number}{slot}\""))
                .replace('@', &json)
        };
        application.add_lesson_of(
            session,
            number,
            1,
            &format!("[{}]", item("v")),
            &format!("[{}, null]", item("d")),
        );
    }
}

#[test]
fn megabyte_strings_in_every_field() {
    each_server(|server| {
        for text in [
            "x".repeat(1_000_000),
            "é".repeat(500_000),
            format!("https://x.test/{}.mp4", "a/".repeat(500_000)),
            "9".repeat(1_000_000),
        ] {
            let database = server.database();
            let mut session = database.session();
            let application = Application::create(&mut session);
            into_each_field(&mut session, &application, &text);
            assert_only_asset_ids_change(&mut session);
            assert!(
                session.is_true("SELECT max(octet_length(canonical_key)) <= 1000 FROM assets"),
                "keys stay indexable"
            );
        }
    });
}

#[test]
fn megabyte_strings_fail_single_lessons_where_the_user_indexes_a_field() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        session.run(
            "CREATE INDEX ON assets (title); CREATE INDEX ON assets (storage_key); CREATE INDEX ON assets (source_url)",
        );
        let text = session.text("SELECT string_agg(md5(n::text), '') FROM generate_series(1, 32000) n");
        into_each_field(&mut session, &application, &text);
        let eligible =
            session.number("SELECT count(DISTINCT lesson_id) FROM explain_lesson_assets() WHERE outcome = 'eligible'");
        session.take_notices();
        let counters = session.counters(EXECUTE);
        counters.expect_sums();
        assert!(counters.get("errors") >= 4, "{counters:?}");
        assert_eq!(counters.get("lessons_scanned"), FIELDS.len() as i64);
        assert_eq!(
            session.number("SELECT count(DISTINCT target_id) FROM asset_usages") + counters.get("errors"),
            eligible
        );
        // a value of a megabyte is no reason for a WARNING of a megabyte
        assert!(session
            .take_warnings()
            .iter()
            .all(|warning| media_assets_tests::words(warning).len() < 20_000));
    });
}

#[test]
fn odd_strings_in_every_field() {
    each_server(|server| {
        let database = server.database();
        for (number, text) in [
            "'; DROP TABLE lesson; --",
            "\u{1}\u{2}\u{1f}\u{7f}",
            "\u{feff}\u{200b}\u{202e}",
            "\"",
            "\\",
            "{}",
            "{\"a\"}",
            "NULL",
            "%00%",
            "$$",
            "\u{10ffff}\u{1F468}\u{200D}\u{1F469}",
            "https://[::1",
            "https://user:pass@x.test:99999/",
            "https://x.test/%ff%fe",
            "//",
            "s3://",
            "<iframe src='https://x.test/'>",
        ]
        .into_iter()
        .enumerate()
        {
            let mut session = database.session();
            session.run(&format!(
                "CREATE SCHEMA odd_{number}; SET search_path = odd_{number}, public"
            ));
            let application = Application::create(&mut session);
            into_each_field(&mut session, &application, text);
            assert_only_asset_ids_change(&mut session);
        }
    });
}

#[test]
fn identity_functions_take_anything() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let mut texts: Vec<String> = [
            "",
            " ",
            "\u{feff}",
            "'",
            "\\",
            "<iframe",
            "<iframe src=",
            "&amp;&amp;",
            "https://",
            "http://%",
            "//x",
            "C:\\",
            "\\\\",
            "\\\\?\\",
            "file:",
            "file://",
            "s3://",
            "a:b:c",
            "%",
            "%f",
            "\u{10ffff}",
            "https://xn--",
            "https://xn--\u{e9}.test/",
            "https://a..b/",
            "https://1.1.1.256/",
        ]
        .map(String::from)
        .into();
        for unit in [
            "a", "/", ".", "..", "%", "&amp;", "<iframe ", "[", "@", ":", "?", "#", "é", "\u{0301}", "https://",
        ] {
            texts.push(unit.repeat(100_000 / unit.len()));
            texts.push(format!("https://x.test/{}", unit.repeat(100_000 / unit.len())));
        }
        for text in texts {
            let text = literal(&text);
            session.run(&format!(
                "SET statement_timeout = '20s';
                 SELECT canonical_url({text}), parse_media_link({text}), infer_mime_type({text}, {text}, {text}), infer_asset_kind({text}, {text}),
                        normalize_path({text}), normalize_path({text}, false), content_signature({text}, -1, 'infinity'), content_signature(NULL, 1, '-infinity'),
                        enricher_checksum(to_jsonb({text}::text)), enricher_checksum(jsonb_build_array(to_jsonb({text}::text), jsonb_build_object('enricher_id', {text}, 'priority', {text})));
                 SELECT asset_canonical_key(p, {text}, {text}) FROM unnest(ARRAY['upload', 'google_drive', 'youtube', 'generic', 'filesystem', 'plex', 'jellyfin', 's3', {text}]) p"
            ));
            let longest = session.value(&format!(
                "SELECT max(octet_length(asset_canonical_key(p, {text}))) FROM unnest(ARRAY['upload', 'google_drive', 'youtube', 'generic', 'filesystem', 'plex', 's3']) p"
            ));
            assert!(longest.is_none_or(|bytes| bytes.parse::<u32>().expect("a number") <= 1000));
        }
    });
}
