//! What holds of the importers for every line.

use media_assets_core::import::convex::{read_documents, Table};
use media_assets_core::import::dynamodb::read_items;
use proptest::prelude::*;
use serde_json::{json, Value};

/// A JSON value and its typed form.
fn typed() -> impl Strategy<Value = (Value, Value)> {
    let leaf = prop_oneof![
        "[a-zé\"\\\\ ]{0,4}".prop_map(|text| (json!(text), json!({"S": text}))),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,6})?".prop_map(|text| {
            let number: serde_json::Number = text.parse().expect("a number");
            (Value::Number(number), json!({"N": text}))
        }),
        any::<bool>().prop_map(|value| (json!(value), json!({"BOOL": value}))),
        Just((json!(null), json!({"NULL": true}))),
        prop::collection::vec("[a-z]{0,3}", 0..3).prop_map(|texts| (json!(texts), json!({"SS": texts}))),
        prop::collection::vec(0u32..9, 0..3).prop_map(|numbers| {
            let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            (json!(numbers), json!({"NS": texts}))
        }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|pairs| {
                let (plain, typed): (Vec<Value>, Vec<Value>) = pairs.into_iter().unzip();
                (json!(plain), json!({"L": typed}))
            }),
            prop::collection::btree_map("[a-zSN$]{0,3}", inner, 0..4).prop_map(|members| {
                let plain = members
                    .iter()
                    .map(|(name, pair)| (name.clone(), pair.0.clone()))
                    .collect();
                let typed: Value = members.into_iter().map(|(name, pair)| (name, pair.1)).collect();
                (plain, json!({"M": typed}))
            }),
        ]
    })
}

/// Lines that are nearly something.
fn line() -> impl Strategy<Value = String> {
    let pieces = vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"PK\"",
        "\"SK\"",
        "\"Item\"",
        "\"Items\"",
        "\"S\"",
        "\"N\"",
        "\"M\"",
        "\"_id\"",
        "\"MEDIA#1\"",
        "\"METADATA\"",
        "\"$integer\"",
        "\"index\"",
        "1",
        "1e999",
        "null",
        "true",
        "\"\\u0000\"",
        "\"\\ud800\"",
    ];
    let broken = prop::collection::vec(prop::sample::select(pieces), 0..12).prop_map(|pieces| pieces.concat());
    let whole = typed().prop_map(|(plain, typed)| {
        json!({"PK": {"S": "MEDIA#1"}, "SK": {"S": "METADATA"}, "_id": "a", "metadata": typed, "index": plain, "videoAsset": plain}).to_string()
    });
    prop_oneof![2 => broken, 2 => whole, 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_an_item_or_a_problem(lines in prop::collection::vec(line(), 0..6), first in 1i64..9) {
        let lines: Vec<Option<&str>> = lines.iter().map(|line| Some(&**line)).collect();
        let last = first + lines.len() as i64;
        let import = read_items(lines.clone(), first);
        prop_assert!(import.problems.len() as i64 >= import.failed);
        prop_assert!(import.problems.iter().all(|problem| (first..last).contains(&problem.line)));
        for table in Table::ALL {
            let import = read_documents(table, lines.clone(), first);
            prop_assert!(import.rows.len() as i64 + import.failed <= lines.len() as i64);
            prop_assert!(import.rows.iter().all(|row| row.cells.len() == table.columns().len()));
            prop_assert!(import.problems.iter().all(|problem| (first..last).contains(&problem.line)));
        }
    }

    #[test]
    fn typed_values_become_what_they_were((plain, typed) in typed()) {
        let item = json!({"PK": {"S": "MEDIA#1"}, "SK": {"S": "METADATA"}, "metadata": typed});
        for line in [item.to_string(), json!({"Item": item}).to_string(), json!({"Items": [item], "Count": 1}).to_string()] {
            let import = read_items([Some(&*line)], 1);
            prop_assert_eq!(&import.problems, &[]);
            let metadata = import.media[0].metadata.clone();
            prop_assert_eq!(metadata, Some(plain.clone()).filter(|value| !value.is_null()));
        }
    }
}
