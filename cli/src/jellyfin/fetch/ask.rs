//! One question to Jellyfin, and its answers.

use std::time::Duration;

use serde_json::Value;

use crate::jellyfin::http::{Server, Trouble};
use crate::jellyfin::tries::Tries;

/// Hits of a search are asked for in pages of so many.
const PAGE: usize = 100;
/// No name and date has more pages of hits than that.
const MOST_PAGES: usize = 50;

/// One request to make.
#[derive(Clone, Debug)]
pub enum Request {
    Items(Vec<String>),
    Search { key: String, name: String, date: String },
}

/// A row for `jellyfin_items`.
pub struct Answer {
    pub item_id: String,
    pub doc: Option<Value>,
    /// `None` where there was no answer at all.
    pub status: Option<u16>,
    /// Why the question is still open.
    pub error: Option<String>,
}

/// What came of a request.
#[derive(Default)]
pub struct Outcome {
    pub answers: Vec<Answer>,
    /// Questions that were answered, one way or the other.
    pub found: usize,
    pub not_found: usize,
    /// Of those that were not found: by the status 404 or 410, and not by a list without them, as Jellyfin says it.
    pub gone: usize,
    pub failed: usize,
    /// Nothing else in this call can go well.
    pub stop: Option<Trouble>,
}

impl Request {
    /// How many questions it is about.
    pub fn questions(&self) -> usize {
        match self {
            Request::Items(ids) => ids.len(),
            Request::Search { .. } => 1,
        }
    }

    pub fn path_and_query(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let mut query = match self {
            Request::Items(ids) => vec![("ids", ids.join(","))],
            Request::Search { name, date, .. } => vec![
                ("searchTerm", name.clone()),
                ("recursive", "true".to_owned()),
                // The UTC day; what fits in the end is the database's to say.
                ("minPremiereDate", format!("{date}T00:00:00.000Z")),
                ("maxPremiereDate", format!("{date}T23:59:59.999Z")),
            ],
        };
        // What somebody watched is nobody's business.
        query.push(("enableUserData", "false".to_owned()));
        ("/Items", query)
    }
}

/// Asks one server, with the tries that the call allows.
pub struct Asker<'s> {
    pub server: &'s Server,
    pub tries: &'s Tries,
    pub most_tries: u32,
    pub backoff: Duration,
}

impl Asker<'_> {
    /// One request and its answers. When a server fails over several items, each half is asked for by itself, so that one
    /// bad item costs itself only.
    pub fn ask(&self, request: &Request) -> Outcome {
        let mut outcome = Outcome::default();
        match request {
            Request::Items(ids) => self.items(ids, self.most_tries, &mut outcome),
            Request::Search { key, .. } => match self.search(request) {
                Ok(hits) => {
                    let status = if hits.is_empty() { 404 } else { 200 };
                    match status {
                        404 => outcome.not_found += 1,
                        _ => outcome.found += 1,
                    }
                    outcome.answers.extend(hits);
                    outcome.answers.push(Answer {
                        item_id: key.clone(),
                        doc: None,
                        status: Some(status),
                        error: None,
                    });
                }
                Err(trouble) => self.failed(key, trouble, &mut outcome),
            },
        }
        outcome
    }

    fn items(&self, ids: &[String], most_tries: u32, outcome: &mut Outcome) {
        let (path, query) = Request::Items(ids.to_vec()).path_and_query();
        let answered = self
            .tries
            .call(most_tries, self.backoff, || items_of(self.server.get(path, &query)?));
        match (answered, ids) {
            (Ok(items), _) => {
                for id in ids {
                    let doc = items.iter().find(|item| same_id(item, id)).cloned();
                    match doc {
                        Some(_) => outcome.found += 1,
                        None => outcome.not_found += 1,
                    }
                    outcome.answers.push(Answer {
                        item_id: id.clone(),
                        status: Some(if doc.is_some() { 200 } else { 404 }),
                        error: None,
                        doc,
                    });
                }
            }
            (Err(trouble), [id]) => self.failed(id, trouble, outcome),
            (Err(trouble), _) if self.tries.is_over(&trouble) => outcome.stop = Some(trouble),
            _ => {
                let (left, right) = ids.split_at(ids.len() / 2);
                for half in [left, right] {
                    if outcome.stop.is_none() {
                        // All of it was tried before.
                        self.items(half, most_tries.min(2), outcome);
                    }
                }
            }
        }
    }

    /// A question without an answer, or the end of the call where none is to be had.
    fn failed(&self, item_id: &str, trouble: Trouble, outcome: &mut Outcome) {
        let ends = self.tries.is_over(&trouble);
        let status = match &trouble {
            Trouble::Lasting {
                status: status @ (404 | 410),
                ..
            } => {
                outcome.not_found += 1;
                outcome.gone += 1;
                return outcome.answers.push(Answer {
                    item_id: item_id.to_owned(),
                    doc: None,
                    status: Some(*status),
                    error: None,
                });
            }
            // An answer that cannot be read is none, whatever its status says.
            Trouble::Passing {
                status: Some(200..=299),
                ..
            } => Some(502),
            Trouble::Passing { status, .. } => *status,
            Trouble::Lasting { status, .. } => Some(*status),
            Trouble::Refused(_) | Trouble::Unreachable { .. } | Trouble::Stopped => None,
        };
        if !ends {
            outcome.failed += 1;
            outcome.answers.push(Answer {
                item_id: item_id.to_owned(),
                doc: None,
                status,
                error: Some(trouble.text()),
            });
        } else {
            outcome.stop = Some(trouble);
        }
    }

    /// All items that a search finds, each under its own id.
    fn search(&self, request: &Request) -> Result<Vec<Answer>, Trouble> {
        let (path, query) = request.path_and_query();
        let mut hits: Vec<Answer> = Vec::new();
        for page in 0..MOST_PAGES {
            let mut query = query.clone();
            query.push(("startIndex", (page * PAGE).to_string()));
            query.push(("limit", PAGE.to_string()));
            let items = self.tries.call(self.most_tries, self.backoff, || {
                items_of(self.server.get(path, &query)?)
            })?;
            let is_last = items.len() < PAGE;
            hits.extend(items.into_iter().filter_map(|item| {
                Some(Answer {
                    item_id: item["Id"].as_str()?.to_owned(),
                    doc: Some(item),
                    status: Some(200),
                    error: None,
                })
            }));
            if is_last {
                return Ok(hits);
            }
        }
        Err(Trouble::unusable(format!(
            "a search finds more than {} items",
            MOST_PAGES * PAGE
        )))
    }
}

/// The items of an answer: `{"Items": […]}`.
fn items_of(answer: Value) -> Result<Vec<Value>, Trouble> {
    match answer {
        Value::Object(mut members) => match members.remove("Items") {
            Some(Value::Array(items)) => Ok(items.into_iter().filter(Value::is_object).collect()),
            _ => Err(Trouble::unusable("the answer has no list of Items")),
        },
        _ => Err(Trouble::unusable("the answer is no JSON object")),
    }
}

/// Whether an item has this id: Jellyfin takes one with or without dashes, in either case, and answers in its own way.
fn same_id(item: &Value, id: &str) -> bool {
    let plain = |id: &str| id.replace('-', "").to_ascii_lowercase();
    item["Id"].as_str().is_some_and(|own| plain(own) == plain(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_the_same_in_every_form() {
        let item = json!({"Id": "0123ABCD00000000000000000000EF00"});
        assert!(same_id(&item, "0123abcd-0000-0000-0000-00000000ef00"));
        assert!(!same_id(&item, "0123abcd"));
        assert!(!same_id(&json!({"Id": 5}), "5"));
    }

    #[test]
    fn answers_of_another_shape_are_no_answers() {
        for odd in [
            json!(null),
            json!([]),
            json!({}),
            json!({"Items": {}}),
            json!({"items": []}),
        ] {
            assert!(matches!(items_of(odd), Err(Trouble::Passing { .. })));
        }
        assert_eq!(
            items_of(json!({"Items": [5, {"Id": "a"}, null]})).map(|items| items.len()),
            Ok(1)
        );
    }
}
