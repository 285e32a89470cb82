//! Answers on their way into `jellyfin_items`.

use postgres::Client;
use serde_json::Value;

use super::ask::Answer;
use crate::failure::Failure;

/// Stores answers in one statement, in the order of their ids, so that two calls at once do not deadlock. What the database
/// refuses costs itself only: it counts as a question that failed. Gives what to say of each.
pub fn store(client: &mut Client, answers: &[Answer]) -> Result<Vec<String>, Failure> {
    let mut sorted: Vec<&Answer> = answers.iter().collect();
    sorted.sort_by(|left, right| left.item_id.cmp(&right.item_id));
    sorted.dedup_by(|left, right| left.item_id == right.item_id);
    let mut refused = Vec::new();
    match write(client, &sorted) {
        Err(error) if is_about_a_value(&error) => {
            for answer in sorted {
                let Err(error) = write(client, &[answer]) else { continue };
                if !is_about_a_value(&error) {
                    return Err(Failure::of_database(&error, None));
                }
                let said = format!("the database refuses the answer: {}", said_by(&error));
                refused.push(format!("{}: {said}", shortened(&answer.item_id)));
                let failed = Answer {
                    item_id: answer.item_id.clone(),
                    doc: None,
                    status: None,
                    error: Some(said),
                };
                // An id that is itself too long is kept nowhere.
                match write(client, &[&failed]) {
                    Err(error) if !is_about_a_value(&error) => return Err(Failure::of_database(&error, None)),
                    _ => {}
                }
            }
        }
        written => written.map_err(|error| Failure::of_database(&error, None))?,
    }
    Ok(refused)
}

/// A number out of range, an entry too long for its index.
fn is_about_a_value(error: &postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|state| state.code().starts_with("22") || state.code().starts_with("54"))
}

fn said_by(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |error| format!("{} (SQLSTATE {})", error.message(), error.code().code()),
    )
}

fn shortened(id: &str) -> String {
    id.chars().take(100).collect()
}

/// A failure never takes the place of an answer that another call got meanwhile.
fn write(client: &mut Client, sorted: &[&Answer]) -> Result<(), postgres::Error> {
    if sorted.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = sorted.iter().map(|answer| answer.item_id.as_str()).collect();
    let docs: Vec<Option<String>> = sorted
        .iter()
        .map(|answer| answer.doc.clone().map(|doc| without_nul(doc).to_string()))
        .collect();
    let statuses: Vec<Option<i32>> = sorted
        .iter()
        .map(|answer| {
            answer
                .status
                .map(i32::from)
                .filter(|status| (100..=599).contains(status))
        })
        .collect();
    let errors: Vec<Option<String>> = sorted
        .iter()
        .map(|answer| answer.error.as_ref().map(|error| error.replace('\0', "")))
        .collect();
    client
        .execute(
            "INSERT INTO jellyfin_items AS i (item_id, doc, http_status, fetched_at, error)
             SELECT u.item_id, u.doc::jsonb, u.http_status, clock_timestamp(), u.error
             FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[]) u(item_id, doc, http_status, error)
             ON CONFLICT (item_id) DO UPDATE
             SET doc = excluded.doc, http_status = excluded.http_status, fetched_at = excluded.fetched_at, error = excluded.error
             WHERE excluded.error IS NULL OR (i.http_status BETWEEN 200 AND 299 OR i.http_status IN (404, 410)) IS NOT TRUE",
            &[&ids, &docs, &statuses, &errors],
        )
        .map(drop)
}

/// A jsonb cannot hold U+0000.
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "")),
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_nul).collect()),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| (name.replace('\0', ""), without_nul(value)))
                .collect(),
        ),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_nul_reaches_the_database() {
        assert_eq!(
            without_nul(json!({"a\0": ["x\0y", {"b": 1}]})),
            json!({"a": ["xy", {"b": 1}]})
        );
    }
}
