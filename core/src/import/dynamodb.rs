//! A DynamoDB export: items in typed JSON turned into rows of `media` and `i2v_jobs`.
//!
//! A line is `{"Item": {…typed…}}` (an export to S3), a bare typed item, or a scan document `{"Items": […], …}`. Media are
//! `MEDIA#…`/`METADATA`, jobs `I2VJOB#…`/`METADATA`; every other entity is passed over.
//!
//! Source: image-to-video thumbnails, import.

use serde_json::{Map, Number, Value};

use super::{has_nul, read_json, Problem};
use crate::decimal::Decimal;
use crate::time::{parse_timestamp, timestamp_of_number};

/// Most digits of a DynamoDB number.
const MOST_DIGITS: usize = 38;

/// Longest plain form of a DynamoDB number: its powers of ten reach from -130 to 125, and 38 digits follow the last.
const LONGEST_NUMBER: usize = 172;

/// A row of `media`. A missing attribute and one of type NULL are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaRow {
    pub line: i64,
    pub id: String,
    pub media_type: Option<String>,
    pub thumbnail_url: Option<String>,
    pub thumbnail_urls: Option<Value>,
    pub created_by: Option<String>,
    pub is_public: Option<bool>,
    pub metadata: Option<Value>,
    /// Microseconds since the epoch.
    pub updated_at: Option<i64>,
}

/// A row of `i2v_jobs`.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub line: i64,
    pub job_id: String,
    pub media_id: Option<String>,
    pub original_media_id: Option<String>,
    pub result_media_id: Option<String>,
    pub mode: Option<String>,
    pub status: Option<String>,
}

/// What the lines of an export hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    pub media: Vec<MediaRow>,
    pub jobs: Vec<JobRow>,
    /// Items that are another entity.
    pub ignored: i64,
    /// Lines, or items of a scan document, that are no item.
    pub failed: i64,
    /// Those, and attributes of another type than their column, which became NULL.
    pub problems: Vec<Problem>,
}

/// Reads lines of an export; `first_line` is the number of the first one. `None` is SQL NULL. Blank lines are passed over.
pub fn read_items<'l>(lines: impl IntoIterator<Item = Option<&'l str>>, first_line: i64) -> Import {
    let mut import = Import::default();
    for (number, line) in (first_line..).zip(lines) {
        match line.map(read_json) {
            None => import.fail(number, "no line"),
            Some(None) => (),
            Some(Some(Err(message))) => import.fail(number, &message),
            Some(Some(Ok(document))) => import.read_document(number, &document),
        }
    }
    import
}

impl Import {
    fn fail(&mut self, line: i64, message: &str) {
        self.failed += 1;
        self.problems.push(Problem {
            line,
            message: message.to_owned(),
        });
    }

    fn read_document(&mut self, line: i64, document: &Value) {
        // An item may have an attribute called Items of its own.
        let is_item = document.get("PK").is_some();
        match document.get("Items").and_then(Value::as_array).filter(|_| !is_item) {
            Some(items) => {
                for (position, item) in (1..).zip(items) {
                    self.read_item(line, Some(position), item);
                }
            }
            None => self.read_item(line, None, document),
        }
    }

    fn read_item(&mut self, line: i64, position: Option<i64>, document: &Value) {
        let is_bare = document.get("PK").is_some();
        let item = if is_bare {
            document
        } else {
            document.get("Item").unwrap_or(document)
        };
        if let Err(message) = self.read_entity(line, item) {
            match position {
                Some(position) => self.fail(line, &format!("item {position}: {message}")),
                None => self.fail(line, &message),
            }
        }
    }

    fn read_entity(&mut self, line: i64, item: &Value) -> Result<(), String> {
        let members = item
            .as_object()
            .filter(|members| !members.is_empty())
            .ok_or("no DynamoDB item: an object of typed attributes is wanted")?;
        let key = |name: &str| {
            Some(typed(members.get(name)?))
                .filter(|(kind, _)| *kind == "S")?
                .1?
                .as_str()
        };
        let partition = key("PK").ok_or("no DynamoDB item: its PK is no typed string")?;
        let is_metadata = key("SK") == Some("METADATA");
        let mut item = Attributes {
            members,
            line,
            problems: Vec::new(),
        };
        if let Some(id) = partition.strip_prefix("MEDIA#").filter(|_| is_metadata) {
            let row = item.media(id)?;
            self.media.push(row);
        } else if let Some(id) = partition.strip_prefix("I2VJOB#").filter(|_| is_metadata) {
            let row = item.job(id)?;
            self.jobs.push(row);
        } else {
            self.ignored += 1;
        }
        self.problems.append(&mut item.problems);
        Ok(())
    }
}

/// The attributes of one item.
struct Attributes<'i> {
    members: &'i Map<String, Value>,
    line: i64,
    problems: Vec<Problem>,
}

impl Attributes<'_> {
    fn media(&mut self, key: &str) -> Result<MediaRow, String> {
        Ok(MediaRow {
            line: self.line,
            id: self.id("id", key)?,
            media_type: self.text("type")?,
            thumbnail_url: self.text("thumbnailUrl")?,
            thumbnail_urls: self.value("thumbnailUrls")?,
            created_by: self.text("createdBy")?,
            is_public: self.boolean("isPublic")?,
            metadata: self.value("metadata")?,
            updated_at: self.time("updatedAt")?,
        })
    }

    fn job(&mut self, key: &str) -> Result<JobRow, String> {
        Ok(JobRow {
            line: self.line,
            job_id: self.id("jobId", key)?,
            media_id: self.text("mediaId")?,
            original_media_id: self.text("originalMediaId")?,
            result_media_id: self.text("resultMediaId")?,
            mode: self.text("mode")?,
            status: self.text("status")?,
        })
    }

    /// A missing id comes from the key.
    fn id(&mut self, name: &str, key: &str) -> Result<String, String> {
        let id = self.text(name)?.filter(|id| !id.is_empty());
        id.or_else(|| Some(key.to_owned()).filter(|key| !key.is_empty() && !key.contains('\0')))
            .ok_or_else(|| format!("no DynamoDB item: neither {name} nor its PK names it"))
    }

    /// The plain value of an attribute; `None` when it is missing or of type NULL.
    fn value(&mut self, name: &str) -> Result<Option<Value>, String> {
        let Some(attribute) = self.members.get(name) else {
            return Ok(None);
        };
        let value = plain(attribute).map_err(|message| format!("{name}: {message}"))?;
        if has_nul(&value) {
            return Ok(self.report(name, "has a NUL character"));
        }
        Ok(Some(value).filter(|value| !value.is_null()))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        Ok(match self.value(name)? {
            Some(Value::String(text)) => Some(text),
            Some(_) => self.report(name, "is no string"),
            None => None,
        })
    }

    /// A boolean, or the text of one.
    fn boolean(&mut self, name: &str) -> Result<Option<bool>, String> {
        Ok(match self.value(name)? {
            Some(Value::Bool(value)) => Some(value),
            Some(Value::String(text)) if text == "true" => Some(true),
            Some(Value::String(text)) if text == "false" => Some(false),
            Some(_) => self.report(name, "is no boolean"),
            None => None,
        })
    }

    /// An ISO 8601 text, or a number of seconds or milliseconds.
    fn time(&mut self, name: &str) -> Result<Option<i64>, String> {
        let time = match self.value(name)? {
            Some(Value::String(text)) => parse_timestamp(&text),
            Some(Value::Number(number)) => timestamp_of_number(number.as_str()),
            Some(_) => None,
            None => return Ok(None),
        };
        Ok(time.or_else(|| self.report(name, "is no time")))
    }

    fn report<T>(&mut self, name: &str, what: &str) -> Option<T> {
        self.problems.push(Problem {
            line: self.line,
            message: format!("{name} {what}"),
        });
        None
    }
}

/// Type and content of a typed value (`{"S": "x"}`); an empty type for anything else.
fn typed(attribute: &Value) -> (&str, Option<&Value>) {
    match attribute
        .as_object()
        .map(|members| (members.len(), members.iter().next()))
    {
        Some((1, Some((kind, content)))) => (kind, Some(content)),
        _ => ("", None),
    }
}

/// The plain JSON of a typed value: numbers exact to the digit, sets as arrays, binary in base64 as it is written.
fn plain(attribute: &Value) -> Result<Value, String> {
    let (kind, content) = typed(attribute);
    let wrong = || format!("{attribute} is no typed value");
    let array = || content.and_then(Value::as_array).ok_or_else(wrong);
    match (kind, content) {
        ("S" | "B", Some(Value::String(text))) => Ok(Value::from(text.as_str())),
        ("N", Some(Value::String(text))) => number(text),
        ("BOOL", Some(Value::Bool(value))) => Ok(Value::Bool(*value)),
        ("NULL", Some(Value::Bool(_))) => Ok(Value::Null),
        ("M", Some(Value::Object(members))) => members
            .iter()
            .map(|(name, value)| Ok((name.clone(), plain(value)?)))
            .collect::<Result<Map<_, _>, String>>()
            .map(Value::Object),
        ("L", _) => array()?.iter().map(plain).collect(),
        ("SS" | "BS", _) => array()?
            .iter()
            .map(|element| element.as_str().map(Value::from).ok_or_else(wrong))
            .collect(),
        ("NS", _) => array()?
            .iter()
            .map(|element| number(element.as_str().ok_or_else(wrong)?))
            .collect(),
        _ => Err(wrong()),
    }
}

fn number(text: &str) -> Result<Value, String> {
    let wrong = || format!("{text} is no number of DynamoDB");
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let decimal = Decimal::parse(unsigned).ok_or_else(wrong)?;
    if decimal.digits() > MOST_DIGITS || decimal.text().len() > LONGEST_NUMBER {
        return Err(wrong());
    }
    // As written where JSON knows the form, so that 1.50 keeps its scale; `.5` and `007` it does not know.
    let number: Result<Number, _> = unsigned.parse();
    number
        .or_else(|_| decimal.text().parse())
        .map(Value::Number)
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Import {
        read_items(lines.iter().map(|line| Some(*line)), 10)
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        for (text, expected) in [
            ("-1.50", Some("-1.50")),
            ("+5", Some("5")),
            ("007", Some("7")),
            (".5", Some("0.5")),
            ("1E+125", Some("1e+125")),
            (
                "12345678901234567890123456789012345678",
                Some("12345678901234567890123456789012345678"),
            ),
            ("123456789012345678901234567890123456789", None),
            ("1E+400", None),
            ("1e99999999999", None),
            ("NaN", None),
            ("0x10", None),
            ("", None),
            ("- 1", None),
        ] {
            let got = number(text)
                .ok()
                .and_then(|value| Some(value.as_number()?.as_str().to_owned()));
            assert_eq!(got.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn problems_carry_the_number_of_their_line() {
        let import = read(&[
            r#"{"Item": {"PK": {"S": "MEDIA#a"}, "SK": {"S": "METADATA"}, "thumbnailUrl": {"N": "5"}, "isPublic": {"S": "yes"}}}"#,
            "",
            "{",
            r#"{"Items": [{"PK": {"S": "MEDIA#b"}, "SK": {"S": "METADATA"}}, 5]}"#,
            r#"{"PK": {"S": "MEDIA#c"}, "SK": {"S": "METADATA"}, "metadata": {"M": {"x": {"N": "x"}}}}"#,
            r#"{"PK": {"S": "MEDIA#"}, "SK": {"S": "METADATA"}}"#,
            r#"{"PK": {"S": "MEDIA#d"}, "SK": {"S": "METADATA"}, "type": {"S": "a\u0000b"}}"#,
        ]);
        let ids: Vec<&str> = import.media.iter().map(|row| &*row.id).collect();
        assert_eq!((ids, import.failed), (vec!["a", "b", "d"], 4));
        let lines: Vec<i64> = import.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [10, 10, 12, 13, 14, 15, 16]);
        assert!(import.problems[3].message.starts_with("item 2: "));
        assert_eq!(read_items([None], 1).failed, 1);
    }

    #[test]
    fn times_in_both_forms() {
        let import = read(&[
            r#"{"PK": {"S": "MEDIA#a"}, "SK": {"S": "METADATA"}, "updatedAt": {"S": "2025-08-10T04:00:00.25Z"}}"#,
            r#"{"PK": {"S": "MEDIA#b"}, "SK": {"S": "METADATA"}, "updatedAt": {"N": "1754798400250"}}"#,
            r#"{"PK": {"S": "MEDIA#c"}, "SK": {"S": "METADATA"}, "updatedAt": {"S": "soon"}}"#,
        ]);
        let times: Vec<Option<i64>> = import.media.iter().map(|row| row.updated_at).collect();
        assert_eq!(times, [Some(1_754_798_400_250_000), Some(1_754_798_400_250_000), None]);
        assert_eq!(import.problems[0].message, "updatedAt is no time");
    }
}
