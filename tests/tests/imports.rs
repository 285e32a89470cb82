//! Importers: vectors through SQL, bad lines, and the scripts that load export files.

use media_assets_tests::json::vectors;
use media_assets_tests::psql::run;
use media_assets_tests::scenarios::{check, contents, rows};
use media_assets_tests::{each_server, literal, literal_or_null, words, Session};
use serde_json::{json, Map, Value};

const DYNAMODB: &str = "tests/data/AWSDynamoDB/01754790000000-0a1b2c3d";
const CONVEX: &str = "tests/data/convex/snapshot_demo_1754798400250.zip";

fn lines_sql(lines: &[Option<String>]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| literal_or_null(line.as_deref())).collect();
    format!("ARRAY[{}]::text[]", lines.join(", "))
}

/// A number that a double would round stands as `{"$number": "…"}`.
fn exact(value: &Value) -> Value {
    match value {
        Value::Object(members) => match members.get("$number").and_then(Value::as_str) {
            Some(text) => Value::Number(text.parse().expect("a number")),
            None => members
                .iter()
                .map(|(name, value)| (name.clone(), exact(value)))
                .collect(),
        },
        Value::Array(elements) => elements.iter().map(exact).collect(),
        scalar => scalar.clone(),
    }
}

/// Asserts that the rows of a table are those expected, to the digit; times are compared as instants.
fn compare(session: &mut Session, table: &str, key: &str, expected: &Value) -> Vec<String> {
    let got = rows(session, table);
    let expected = expected.as_array().expect("rows");
    let mut wrong = Vec::new();
    if got.len() != expected.len() {
        wrong.push(format!("{table}: {} rows, not {}", got.len(), expected.len()));
    }
    for wanted in expected {
        let row = |got: &[Map<String, Value>]| got.iter().find(|row| row[key] == wanted[key]).cloned();
        let Some(row) = row(&got) else {
            wrong.push(format!("{table}: no row {}", wanted[key]));
            continue;
        };
        for (column, value) in wanted.as_object().expect("a row") {
            let value = exact(value);
            let same = if column.ends_with("_at") {
                let wanted = value.as_str().map_or_else(|| "NULL".to_owned(), literal);
                let id = literal(row[key].as_str().expect("an id"));
                session.is_true(&format!(
                    "SELECT {column} IS NOT DISTINCT FROM {wanted}::timestamptz FROM {table} WHERE {key} = {id}"
                ))
            } else {
                row.get(column) == Some(&value)
            };
            if !same {
                wrong.push(format!(
                    "{table} {} {column}: {:?}, not {value}",
                    wanted[key],
                    row.get(column)
                ));
            }
        }
    }
    wrong
}

fn counts(session: &mut Session, call: &str) -> Value {
    let text = session.text(&format!("SELECT (to_jsonb(i) - 'problems')::text FROM {call} i"));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn dynamodb_import() {
    let cases = vectors("dynamodb_import");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        check(&mut session, &cases, |session, vector| {
            session.run("SELECT * FROM create_media_tables()");
            let lines: Vec<Option<String>> = match &vector["items"] {
                Value::Array(lines) => lines.iter().map(|line| Some(line.to_string())).collect(),
                document => vec![Some(document.to_string())],
            };
            let call = |execute: bool| format!("import_dynamodb_items({}, 1, {execute})", lines_sql(&lines));
            let expect = &vector["expect"];
            session.run("BEGIN READ ONLY");
            let dry = counts(session, &call(false));
            assert!(session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"));
            session.run("COMMIT");
            let executed = counts(session, &call(true));
            let mut wrong = Vec::new();
            if dry != executed {
                wrong.push(format!("dry {dry}, executed {executed}"));
            }
            let rows_of = |name: &str| expect[name].as_array().map_or(0, Vec::len);
            let wanted = json!({"media": rows_of("media"), "jobs": rows_of("i2v_jobs"), "ignored": expect["other"],
                                "failed": expect["rejected"], "unchanged": 0});
            if executed != wanted {
                wrong.push(format!("{executed}, not {wanted}"));
            }
            wrong.extend(compare(session, "media", "id", &expect["media"]));
            wrong.extend(compare(session, "i2v_jobs", "job_id", &expect["i2v_jobs"]));
            let before = contents(session, &["media", "i2v_jobs"]);
            let again = counts(session, &call(true));
            if again["unchanged"] != json!(rows_of("media") + rows_of("i2v_jobs"))
                || again["media"] != 0
                || again["jobs"] != 0
            {
                wrong.push(format!("again: {again}"));
            }
            assert_eq!(contents(session, &["media", "i2v_jobs"]), before);
            wrong
        });
    });
}

/// The expectation, corrected where the page says otherwise.
fn overruled(vector: &Value) -> Value {
    let mut expect = vector["expect"].clone();
    if vector["id"] == "convex_import/dollar-bytes" {
        // `$bytes` in a text column is NULL, and counted.
        expect["rows"][0]["checksum"] = Value::Null;
    }
    expect
}

#[test]
fn convex_import() {
    let cases = vectors("convex_import");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        check(&mut session, &cases, |session, vector| {
            session.run("SELECT * FROM create_scene_tables()");
            let table = vector["table"].as_str().expect("table");
            let lines = vector["lines"].as_array().expect("lines").iter();
            let lines: Vec<Option<String>> = lines.map(|line| line.as_str().map(str::to_owned)).collect();
            let call = |execute: bool| {
                format!(
                    "import_convex_documents({}, {}, 1, {execute})",
                    literal(table),
                    lines_sql(&lines)
                )
            };
            let expect = overruled(vector);
            session.run("BEGIN READ ONLY");
            let dry = counts(session, &call(false));
            assert!(session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"));
            session.run("COMMIT");
            let executed = counts(session, &call(true));
            let mut wrong = Vec::new();
            let number = expect["rows"].as_array().map_or(0, Vec::len);
            let wanted = json!({"imported": number, "unchanged": 0, "failed": expect["rejected"]});
            if executed != wanted || dry != wanted {
                wrong.push(format!("dry {dry}, executed {executed}, not {wanted}"));
            }
            let name = match table {
                "videoSessions" => "video_sessions",
                "assetReferences" => "asset_references",
                name => name,
            };
            wrong.extend(compare(session, name, "id", &expect["rows"]));
            let again = counts(session, &call(true));
            if again["unchanged"] != json!(number) || again["imported"] != 0 {
                wrong.push(format!("again: {again}"));
            }
            wrong
        });
    });
}

#[test]
fn bad_lines_are_named_by_number_and_cost_nothing_else() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "SELECT * FROM create_media_tables(); SELECT * FROM create_scene_tables();
             ALTER TABLE media ADD CHECK (id <> 'm42'); ALTER TABLE scenes ADD CHECK (index IS DISTINCT FROM 77)",
        );
        // Number 42 is refused by the table, 60 is no JSON, 61 has a number beyond every range, 62 is NULL, 63 is blank.
        let row = session.rows(
            r#"SELECT i.media, i.failed, (SELECT string_agg(p ->> 'line', ',') FROM jsonb_array_elements(i.problems) p), i.problems
               FROM (SELECT array_agg(CASE n WHEN 60 THEN '{' WHEN 62 THEN NULL WHEN 63 THEN ' ' ELSE
                            format('{"PK": {"S": "MEDIA#m%1$s"}, "SK": {"S": "METADATA"}, "type": {"S": "video"}, "metadata": {"M": {"n": {"N": "%s"}}}}',
                                   n, CASE n WHEN 61 THEN '1E+999999' ELSE '1' END) END ORDER BY n) AS lines FROM generate_series(1, 150) n) l
               CROSS JOIN LATERAL import_dynamodb_items(l.lines, 1001, true) i"#,
        );
        assert_eq!(row[0][0].as_deref(), Some("145"), "{row:?}");
        assert_eq!(row[0][1].as_deref(), Some("4"), "{row:?}");
        assert_eq!(row[0][2].as_deref(), Some("1042,1060,1061,1062"), "{row:?}");
        assert!(
            row[0][3].as_deref().is_some_and(|problems| problems.contains("23514")),
            "{row:?}"
        );
        assert_eq!(session.number("SELECT count(*) FROM media"), 145);
        let row = session.rows(
            r#"SELECT i.imported, i.failed, i.problems FROM (SELECT array_agg(format('{"_id": "s%1$s", "index": %1$s.0, "videoAsset": {"n": %2$s}}', n,
                            CASE n WHEN 5 THEN '1e999999' ELSE '1.50' END) ORDER BY n) AS lines FROM generate_series(1, 120) n) l
               CROSS JOIN LATERAL import_convex_documents('scenes', l.lines, execute => true) i"#,
        );
        assert_eq!(row[0][..2], [Some("118".to_owned()), Some("2".to_owned())], "{row:?}");
        assert_eq!(
            session.text("SELECT video_asset::text FROM scenes WHERE id = 's6'"),
            r#"{"n": 1.50}"#
        );
    });
}

#[test]
fn wrong_arguments_and_missing_tables() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let error = session.fails_with_hint("42P01", "SELECT * FROM import_dynamodb_items('{}')");
        assert!(words(&error).contains("create_media_tables()"), "{error}");
        let error = session.fails_with_hint("42P01", "SELECT * FROM import_convex_documents('scenes', '{}')");
        assert!(words(&error).contains("create_scene_tables()"), "{error}");
        for call in [
            "import_dynamodb_items(NULL)",
            "import_dynamodb_items('{}', NULL)",
            "import_dynamodb_items('{}', 1, NULL)",
            "import_convex_documents('pg_authid', '{}')",
            "import_convex_documents(NULL, '{}')",
            "import_convex_documents('scenes', NULL)",
        ] {
            session.fails_with_hint("22023", &format!("SELECT * FROM {call}"));
        }
        session.run("SELECT * FROM create_media_tables()");
        session.fails(
            "25006",
            "BEGIN READ ONLY; SELECT * FROM import_dynamodb_items('{}', 1, true)",
        );
        let role = server.role(&database);
        session.run(&format!("GRANT SELECT ON media, i2v_jobs TO {}", role.name));
        let mut user = database.session_as(&role);
        user.run("SELECT * FROM import_dynamodb_items('{}')");
        user.fails_with_hint("42501", "SELECT * FROM import_dynamodb_items('{}', 1, true)");
    });
}

#[test]
fn a_value_without_a_form_in_json_costs_itself_only() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SELECT * FROM create_scene_tables()");
        // NaN, an infinity and an integer of two bytes inside a struct; NaN as a column.
        let row = session.rows(
            r#"SELECT i.imported, i.failed, (SELECT string_agg(p ->> 'message', ', ') FROM jsonb_array_elements(i.problems) p)
               FROM import_convex_documents('scenes', ARRAY['{"_id": "s", "index": {"$float": "AAAAAAAA+H8="},
                   "videoAsset": {"s3Key": "k", "size": {"$float": "AAAAAAAA+H8="}, "more": [{"$float": "AAAAAAAA8P8="}, {"$integer": "BQA="}]}}'],
                   execute => true) i"#,
        );
        assert_eq!(row[0][..2], [Some("1".to_owned()), Some("0".to_owned())], "{row:?}");
        let said = row[0][2].clone().unwrap_or_default();
        assert_eq!(
            said.matches("videoAsset holds a value that is not a finite number")
                .count(),
            2,
            "{said}"
        );
        assert!(
            said.contains("videoAsset holds a value that does not have eight bytes"),
            "{said}"
        );
        assert_eq!(
            session.rows("SELECT index::text, video_asset::text FROM scenes"),
            [[
                None,
                Some(r#"{"more": [null, null], "size": null, "s3Key": "k"}"#.to_owned())
            ]]
        );
    });
}

fn script(
    database: &media_assets_tests::Database,
    name: &str,
    variables: &[(&str, &str)],
) -> media_assets_tests::psql::Ended {
    let mut command = database.command("psql");
    command.args(["-X", "-v", "ON_ERROR_STOP=1"]);
    for (name, value) in variables {
        command.arg("-v").arg(format!("{name}={value}"));
    }
    command.arg("-f").arg(format!("sql/{name}.psql"));
    run(command)
}

#[test]
fn a_dynamodb_export_is_loaded_from_its_folder_a_file_or_a_scan() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SELECT * FROM create_media_tables()");
        let said = script(&database, "import_dynamodb", &[("file", DYNAMODB)]).with(0);
        assert!(said.contains("Nothing was written"), "{said}");
        assert_eq!(session.number("SELECT count(*) FROM media"), 0);
        let said = script(&database, "import_dynamodb", &[("file", DYNAMODB), ("execute", "true")]).with(0);
        for word in ["isPublic is no boolean", "|    4 |", "|    7 |"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(
            session.text("SELECT metadata::text FROM media WHERE id = 'img1'"),
            r#"{"raw": "AAE=", "note": "C:\\temp\ttab \"quoted\"", "tags": ["a", "b"], "width": 12345678901234567890123456789012345678}"#
        );
        assert!(session.is_true("SELECT updated_at = '2025-08-10 04:00:00.25+00' FROM media WHERE id = 'vid1'"));
        session
            .counters("SELECT * FROM backfill_i2v_thumbnails(execute => true)")
            .expect(&[("videos_scanned", 2), ("updated", 2)]);
        // One file of it, as it is; and what a scan prints, over many lines.
        session.run("TRUNCATE media, i2v_jobs");
        let file = format!("{DYNAMODB}/data/47wfkbwcqm4hbmmlhqyzkpgbsq.json.gz");
        script(&database, "import_dynamodb", &[("file", &file), ("execute", "true")]).with(0);
        assert_eq!(session.number("SELECT count(*) FROM media"), 2);
        let folder = std::env::temp_dir().join(media_assets_tests::unique("ma it's \"$(x)\" ü"));
        std::fs::create_dir_all(folder.join("data")).expect("a folder");
        let scan = folder.join("scan.json");
        let document = json!({"Items": [{"PK": {"S": "MEDIA#scanned"}, "SK": {"S": "METADATA"}, "type": {"S": "video"}}], "Count": 1});
        std::fs::write(&scan, serde_json::to_string_pretty(&document).expect("JSON")).expect("a file");
        script(
            &database,
            "import_dynamodb",
            &[("file", &scan.display().to_string()), ("execute", "true")],
        )
        .with(0);
        assert_eq!(session.number("SELECT count(*) FROM media WHERE id = 'scanned'"), 1);
        // A part of it is missing.
        let root = media_assets_tests::psql::root().join(DYNAMODB);
        std::fs::copy(root.join("manifest-summary.json"), folder.join("manifest-summary.json")).expect("a copy");
        std::fs::copy(
            root.join("data/47wfkbwcqm4hbmmlhqyzkpgbsq.json.gz"),
            folder.join("data/47wfkbwcqm4hbmmlhqyzkpgbsq.json.gz"),
        )
        .expect("a copy");
        let said = script(
            &database,
            "import_dynamodb",
            &[("file", &folder.display().to_string()), ("execute", "true")],
        )
        .with(3);
        assert!(said.contains("the manifest counts 7 items, but there are 3"), "{said}");
        script(&database, "import_dynamodb", &[("file", "no/such/file")]).with(3);
        script(&database, "import_dynamodb", &[]).with(3);
        std::fs::remove_dir_all(folder).expect("its own folder");
    });
}

#[test]
fn a_convex_snapshot_is_loaded_from_its_zip_or_one_table() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SELECT * FROM create_scene_tables()");
        script(&database, "import_convex", &[("file", CONVEX)]).with(0);
        assert_eq!(session.number("SELECT count(*) FROM scenes"), 0);
        let said = script(&database, "import_convex", &[("file", CONVEX), ("execute", "true")]).with(0);
        for word in ["index is no integer", "no document", "|    4 |"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(
            session.rows("SELECT id, index::text, error_message, video_asset::text FROM scenes ORDER BY id"),
            [
                vec![Some("jd7sc1".to_owned()), Some("0".to_owned()), None, None],
                vec![
                    Some("jd7sc2".to_owned()),
                    Some("1".to_owned()),
                    Some("C:\\temp\nline".to_owned()),
                    Some("null".to_owned())
                ],
                vec![Some("jd7sc3".to_owned()), None, None, None],
            ]
        );
        assert_eq!(session.number("SELECT count(*) FROM video_sessions"), 1);
        session
            .counters("SELECT * FROM backfill_s3_assets(execute => true)")
            .expect(&[("scenes_migrated", 3), ("sessions_migrated", 1)]);
        session.run("TRUNCATE scenes, video_sessions");
        script(
            &database,
            "import_convex",
            &[("file", CONVEX), ("table", "videoSessions"), ("execute", "true")],
        )
        .with(0);
        assert_eq!(
            session.number("SELECT (SELECT count(*) FROM scenes) + 10 * (SELECT count(*) FROM video_sessions)"),
            10
        );
        script(&database, "import_convex", &[("file", CONVEX), ("table", "pg_authid")]).with(3);
        script(&database, "import_convex", &[("file", "documents.jsonl")]).with(3);
        script(&database, "import_convex", &[("file", "no/such.zip")]).with(3);
    });
}

/// Lines that are no text, or that \copy would stumble over, and what psql takes for the end.
const HOSTILE: [&[u8]; 8] = [
    b"a\x01b",
    b"\x02\x02",
    b"\x03",
    b"\"\xff\xfe\"",
    b"{\"a\": \"\x00\"}",
    b"\\.",
    b"one\rtwo",
    b"\\N",
];

#[test]
fn no_line_ends_a_load() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SELECT * FROM create_media_tables(); SELECT * FROM create_scene_tables()");
        let folder = std::env::temp_dir().join(media_assets_tests::unique("hostile"));
        std::fs::create_dir_all(&folder).expect("a folder");
        for (job, good) in [
            (
                "import_dynamodb",
                r#"{"PK": {"S": "MEDIA#@"}, "SK": {"S": "METADATA"}, "type": {"S": "vidéo \\ \u65e5"}}"#,
            ),
            ("import_convex", r#"{"_id": "@", "status": "vidéo \\ \u65e5"}"#),
        ] {
            let mut bytes = good.replace('@', "first").into_bytes();
            for line in HOSTILE {
                bytes.push(b'\n');
                bytes.extend(line);
            }
            // The last lines end as on Windows, and the very last does not end.
            bytes.extend(format!("\n{}\r\n{}", good.replace('@', "second"), good.replace('@', "third")).bytes());
            let file = folder.join(format!("{job}.jsonl"));
            std::fs::write(&file, bytes).expect("a file");
            let said = script(
                &database,
                job,
                &[
                    ("file", &file.display().to_string()),
                    ("table", "scenes"),
                    ("execute", "true"),
                ],
            )
            .with(0);
            assert!(said.contains("Problems, the first 20 of 8"), "{job}: {said}");
            for line in 2..10 {
                assert!(
                    said.contains(&format!("|    {line} |")),
                    "{job}: line {line} is not named: {said}"
                );
            }
        }
        for (table, column) in [("media", "type"), ("scenes", "status")] {
            assert_eq!(
                session.rows(&format!("SELECT id, {column} FROM {table} ORDER BY id")),
                ["first", "second", "third"].map(|id| vec![Some(id.to_owned()), Some("vidéo \\ 日".to_owned())])
            );
        }
        std::fs::remove_dir_all(folder).expect("its own folder");
    });
}
