//! Random lessons, and random rows that are there already.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::Rng;

use crate::{literal, Application, Session};

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

/// Fills the tables of an [`Application`] anew; gives whether some asset has a stored key that is not that of its fields.
pub fn fill(session: &mut Session, random: &mut StdRng) -> bool {
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
        let text = |value: Option<&str>| crate::literal_or_null(value);
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

/// Random arguments that narrow a run, each with a comma before it.
pub fn scope(random: &mut StdRng) -> String {
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
