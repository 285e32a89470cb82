//! Random lessons × random rows that are there already: a dry run predicts an execute to the unit,
//! an execute leaves nothing to do, and a second one writes no WAL.

use media_assets_tests::application::{assert_items_are_settled, assert_verified, contents, explained_counters};
use media_assets_tests::{each_server, literal, Application, Counters, Session};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Databases on each server, unless `MEDIA_ASSETS_PROPERTY_ROUNDS` asks for more.
fn rounds() -> u64 {
    let asked = std::env::var("MEDIA_ASSETS_PROPERTY_ROUNDS");
    asked.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(60)
}

/// Few keys, so that items meet each other and the rows that are there.
const KEYS: [&str; 8] = [
    "a",
    "b.mp4",
    "c.pdf",
    "d/e f.mov",
    "ä\u{2009}x",
    "50%_off.mp4",
    "g'h\\i",
    " padded ",
];
const LINKS: [&str; 12] = [
    "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
    "https://youtu.be/dQw4w9WgXcQ?t=5",
    "https://youtu.be/dQw4w9WgXc_",
    "https://drive.google.com/file/d/1AbCdEf_gh/view",
    "https://drive.google.com/open?id=1AbCdEf_gh",
    "https://x.test/a.webm",
    "HTTPS://X.test:443/./a.webm#t=3",
    "https://x.test/a.webm?X-Amz-Signature=1",
    "https://x.test/doc.pdf",
    "javascript:alert(1)",
    "no link",
    "/hls/x.m3u8",
];

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).expect("not empty")
}

fn asset_id(random: &mut StdRng) -> String {
    // 40 is never an asset: a stale id
    let number = random.gen_range(1..=40);
    let id = Application::default().asset(number);
    match random.gen_range(0..4) {
        0 => literal_json(&id.to_uppercase()),
        1 => pick(random, &["\"not-a-uuid\"", "5", "null", "\"\"", "[]", "{}", "true"]).to_owned(),
        _ => literal_json(&id),
    }
}

fn literal_json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn item(random: &mut StdRng) -> String {
    if random.gen_bool(0.08) {
        return pick(random, &["null", "7", "\"text\"", "true", "[]", "[{\"key\": \"a\"}]"]).to_owned();
    }
    let mut fields = Vec::new();
    if random.gen_bool(0.7) {
        let kinds = [
            "upload",
            "UPLOAD ",
            "youtube",
            "generic",
            "external_url",
            "google_drive",
            "vimeo",
            "pdf",
            "video/mp4",
            "",
        ];
        fields.push(format!("\"type\": {}", literal_json(pick(random, &kinds))));
    }
    if random.gen_bool(0.5) {
        let name = if random.gen_bool(0.9) { "key" } else { "videoKey" };
        fields.push(format!("\"{name}\": {}", literal_json(pick(random, &KEYS))));
    }
    if random.gen_bool(0.5) {
        fields.push(format!("\"link\": {}", literal_json(pick(random, &LINKS))));
    }
    if random.gen_bool(0.4) {
        fields.push(format!("\"assetId\": {}", asset_id(random)));
    }
    if random.gen_bool(0.4) {
        fields.push(format!(
            "\"size\": {}",
            pick(
                random,
                &["5", "5.0", "-1", "\"77\"", "1e400", "[]", "9223372036854775808"]
            )
        ));
    }
    if random.gen_bool(0.3) {
        fields.push(format!(
            "\"metadata\": {}",
            pick(random, &["{\"duration\": 61.50, \"n\": 1.2300}", "[]", "null", "{}"])
        ));
    }
    if random.gen_bool(0.3) {
        fields.push(format!(
            "\"name\": {}",
            pick(random, &["\"n.pdf\"", "5", "\" \"", "\"x'y\""])
        ));
    }
    fields.shuffle(random);
    format!("{{{}}}", fields.join(", "))
}

fn column(random: &mut StdRng) -> String {
    match random.gen_range(0..20) {
        0 => "NULL".into(),
        1 => literal(pick(random, &["null", "{}", "\"text\"", "5", "{\"key\": \"a\"}"])),
        _ => {
            let items: Vec<String> = (0..random.gen_range(0..6)).map(|_| item(random)).collect();
            literal(&format!("[{}]", items.join(", ")))
        }
    }
}

/// Fills the tables; gives whether some asset has a stored key that is not that of its fields.
fn fill(session: &mut Session, random: &mut StdRng) -> bool {
    let application = Application::default();
    session.run("TRUNCATE asset_usages, assets, lesson");
    let mut wrongly_keyed = false;
    for number in 1..=random.gen_range(0..30) {
        let organization = application.organization(random.gen_range(1..=2));
        let (provider, key, link) = match random.gen_range(0..4) {
            0 => ("external_url", None, Some(pick(random, &LINKS))),
            1 => ("youtube", None, Some(pick(random, &LINKS))),
            2 => ("google_drive", Some("1AbCdEf_gh"), None),
            _ => (
                "upload",
                Some(pick(random, &KEYS)).filter(|_| random.gen_bool(0.9)),
                None,
            ),
        };
        let text = |value: Option<&str>| media_assets_tests::literal_or_null(value);
        let unkeyed = random.gen_bool(0.5);
        session.run(&format!(
            "{off}; INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, source_url, byte_size,
                                        is_external, status, metadata, created_at)
             VALUES ('{id}', '{organization}', '{kind}', '{provider}', 's3', {key}, {link}, {size}, false, '{status}', '{{}}',
                     timestamptz '2024-01-01' + interval '1 hour' * {age}); {on}",
            off = if unkeyed { "ALTER TABLE assets DISABLE TRIGGER USER" } else { "" },
            on = if unkeyed { "ALTER TABLE assets ENABLE TRIGGER USER" } else { "" },
            id = application.asset(number),
            kind = pick(random, &["video", "document", "other"]),
            key = text(key),
            link = text(link),
            size = pick(random, &["NULL", "7"]),
            status = pick(random, &["active", "archived"]),
            // few ages, so that twins of one age are told apart by id
            age = random.gen_range(0..3),
        ));
        if !unkeyed && random.gen_bool(0.05) {
            wrongly_keyed = true;
            session.run(&format!(
                "ALTER TABLE assets DISABLE TRIGGER USER;
                 UPDATE assets SET canonical_key = 'upload:wrong{number}' WHERE id = '{}';
                 ALTER TABLE assets ENABLE TRIGGER USER",
                application.asset(number)
            ));
        }
    }
    for number in 1..=random.gen_range(0..40) {
        let (course, videos, documents) = (
            pick(random, &["1", "1", "1", "2", "2", "3", "4", "5", "NULL"]),
            column(random),
            column(random),
        );
        session.run(&format!(
            "INSERT INTO lesson (id, course_id, videos, documents) VALUES ('{}', {course}, {videos}, {documents})",
            application.lesson(number)
        ));
    }
    // usages of lessons that are there or not, at positions that are right or not
    session.run(&format!(
        "INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, position)
         SELECT a.organization_id, a.id, 'lesson', '10000000-0000-4000-8000-' || lpad((1 + n % 45)::text, 12, '0'),
                CASE WHEN n % 3 = 0 THEN 'lesson_document' ELSE 'lesson_video' END, CASE WHEN n % 7 = 0 THEN 'main' END, n % 4
         FROM (SELECT *, row_number() OVER (ORDER BY id) * {} AS n FROM assets) a WHERE n % 2 = 0
         ON CONFLICT DO NOTHING",
        random.gen_range(1..50)
    ));
    wrongly_keyed
}

fn scope(random: &mut StdRng) -> String {
    let application = Application::default();
    let mut filters = String::new();
    if random.gen_bool(0.2) {
        filters += &format!(
            ", organization_id => '{}'",
            application.organization(random.gen_range(1..=2))
        );
    }
    if random.gen_bool(0.2) {
        filters += &format!(", after => '{}'", application.lesson(random.gen_range(1..30)));
    }
    if random.gen_bool(0.2) {
        filters += &format!(", max_lessons => {}", random.gen_range(0..30));
    }
    filters
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

/// Asserts that a call writes next to no WAL, in the best of three: reading may tidy a page of a catalog or of a
/// table that VACUUM could not, and that is not the call's doing.
fn assert_writes_no_wal(session: &mut Session, call: &str, about: &str) {
    let mut written = Vec::new();
    for _ in 0..3 {
        session.run("VACUUM lesson, assets, asset_usages");
        written.push(session.wal_bytes(call));
        if written.last() < Some(&200) {
            return;
        }
    }
    panic!("a run with nothing to do wrote {written:?} bytes of WAL ({about})");
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
