//! `content_published_payload`: the event `content.published.v1` of a row.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::candidate::title_of;
use super::enrichment::enrich;
use super::private::ServerPath;
use super::schema::breach;
use super::{meta_of, meta_string, string, DEFAULT_NAMESPACE};
use crate::identity::{percent_decode_once, trim};
use crate::json::{Json, Kind, Members};

/// The tag that says where an event came from.
const TAG: &str = "backfill";

/// What does not come from row or item.
#[derive(Clone, Copy, Debug, Default)]
pub struct PayloadSettings<'s> {
    /// The address under which the world sees Jellyfin.
    pub public_base: Option<&'s str>,
    /// `media_assets.default_namespace`; blank is [`DEFAULT_NAMESPACE`].
    pub default_namespace: Option<&'s str>,
    /// `None` keeps the version that the row has.
    pub backfill_version: Option<&'s str>,
}

/// Why no valid payload is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// Neither `meta.artifact_uri` nor `content_url`.
    MissingArtifactUri,
    /// An artifact that is not on S3, or neither a key in it nor a `meta.published_path`, or any other rule broken.
    InvalidPayload,
}

/// The payload of a row: an object that satisfies the schema `content.published.v1`, without nulls.
///
/// `board_row` is the row as a JSON object of its columns; `item` what Jellyfin answered. A field of the wrong type is
/// absent. Nothing leaves but the fields of the schema, and of `meta` what the list here names: never a server path. A text
/// that tells the item's `Path` counts as absent.
///
/// # Errors
/// Why there is none.
///
/// Source: Jellyfin metadata, `content_published_payload` and rulings.
pub fn content_published_payload<'a, J: Members<'a>>(
    board_row: J,
    item: Option<J>,
    settings: &PayloadSettings<'_>,
) -> Result<Value, PayloadError> {
    let artifact_uri = meta_string(board_row, "artifact_uri")
        .or_else(|| string(board_row, "content_url"))
        .ok_or(PayloadError::MissingArtifactUri)?;
    let object = artifact_uri.strip_prefix("s3://").ok_or(PayloadError::InvalidPayload)?;
    let item = item.filter(|item| item.kind() == Kind::Object);
    let path = ServerPath::of(item);
    let of_meta = |name: &str| meta_string(board_row, name).filter(|text| !path.is_told_by(text));
    let of_row = |name: &str| string(board_row, name).filter(|text| !path.is_told_by(text));
    let published_path = of_meta("published_path")
        .map(Cow::into_owned)
        .or_else(|| key_of(object))
        .ok_or(PayloadError::InvalidPayload)?;
    let of_meta_or_row = |name: &str| of_meta(name).or_else(|| of_row(name));
    let namespace = of_row("namespace")
        .or_else(|| of_meta("namespace"))
        .or_else(|| Some(Cow::Owned(settings.default_namespace?.to_owned())).filter(|name| !trim(name).is_empty()))
        .unwrap_or(Cow::Borrowed(DEFAULT_NAMESPACE));

    let mut payload = enrich(board_row, item, settings.public_base).members();
    let mut add = |name: &str, value: Option<Cow<'_, str>>| {
        if let Some(text) = value {
            payload.insert(name.to_owned(), Value::from(text));
        }
    };
    add("artifact_uri", Some(artifact_uri));
    add("published_path", Some(Cow::Owned(published_path)));
    add("title", title_of(board_row).filter(|title| !path.is_told_by(title)));
    add("description", of_meta_or_row("description"));
    add("public_url", of_meta_or_row("public_url"));
    add("namespace", Some(namespace));
    payload.insert("tags".to_owned(), tags(board_row, &path).into());
    let meta = public_meta(board_row, item, &path, settings.backfill_version);
    if !meta.is_empty() {
        payload.insert("meta".to_owned(), Value::Object(meta));
    }
    let payload = Value::Object(payload);
    match breach(&payload) {
        None => Ok(payload),
        Some(_) => Err(PayloadError::InvalidPayload),
    }
}

/// The key of `bucket/key`, percent-decoded once; `None` without bucket or key.
fn key_of(object: &str) -> Option<String> {
    let (bucket, key) = object.split_once('/')?;
    (!bucket.is_empty() && !trim(key).is_empty()).then(|| percent_decode_once(key))
}

/// The tags of a row, a list or a string with commas: trimmed, without repeats, in their order, and [`TAG`].
fn tags<'a, J: Members<'a>>(board_row: J, path: &ServerPath) -> Vec<String> {
    let known = |object: J| {
        object
            .get("tags")
            .filter(|tags| matches!(tags.kind(), Kind::Array | Kind::String))
    };
    let column = meta_of(board_row).and_then(known).or_else(|| known(board_row));
    let written: Vec<Cow<'a, str>> = match column.map(|tags| (tags, tags.as_str())) {
        Some((_, Some(text))) => text.split(',').map(|tag| Cow::Owned(tag.to_owned())).collect(),
        Some((list, None)) => list.elements().filter_map(Json::as_str).collect(),
        None => Vec::new(),
    };
    let mut tags: Vec<String> = Vec::with_capacity(written.len() + 1);
    for tag in written.iter().map(|tag| trim(tag)).chain([TAG]) {
        if !tag.is_empty() && !path.is_told_by(tag) && !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    tags
}

/// What of `meta` and item the world may see.
fn public_meta<'a, J: Members<'a>>(
    board_row: J,
    item: Option<J>,
    path: &ServerPath,
    backfill_version: Option<&str>,
) -> Map<String, Value> {
    let of_item = |name: &str| item.and_then(|item| string(item, name));
    let of_meta = |name: &str| meta_string(board_row, name);
    let mut public = Map::new();
    let mut add = |name: &str, value: Option<Cow<'_, str>>| {
        // A path is nobody's business, under whatever name it stands.
        let is_path = |text: &str| text.starts_with('/') || text.contains('\\') || path.is_told_by(text);
        if let Some(text) = value.filter(|text| !is_path(text)) {
            public.insert(name.to_owned(), Value::from(text));
        }
    };
    add(
        "premiere_date",
        of_meta("premiere_date").or_else(|| of_item("PremiereDate")),
    );
    add("container", of_item("Container").or_else(|| of_meta("container")));
    let version = backfill_version.map(Cow::Borrowed);
    add("backfill_version", version.or_else(|| of_meta("backfill_version")));
    add("slug", of_meta("slug"));
    add("artifact_type", of_meta("artifact_type"));
    let year = |object: Option<J>, name: &str| object?.get(name)?.number_text()?.parse().ok();
    let year = year(item, "ProductionYear").or_else(|| year(meta_of(board_row), "production_year"));
    if let Some(year) = year {
        public.insert("production_year".to_owned(), Value::Number(year));
    }
    public
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn payload(row: &Value) -> Result<Value, PayloadError> {
        content_published_payload(row, None, &PayloadSettings::default())
    }

    #[test]
    fn artifacts() {
        let path = |row: Value| payload(&row).map(|payload| payload["published_path"].clone());
        assert_eq!(
            path(json!({"content_url": "s3://b/a%20b%2520.mp4"})),
            Ok(json!("a b%20.mp4"))
        );
        assert_eq!(
            path(json!({"content_url": "s3://b", "meta": {"published_path": "p"}})),
            Ok(json!("p"))
        );
        for invalid in ["s3://b", "s3://b/", "s3:///k", "https://b/k", "S3://b/k", " s3://b/k"] {
            assert_eq!(
                path(json!({"content_url": invalid})),
                Err(PayloadError::InvalidPayload),
                "{invalid}"
            );
        }
        for missing in [
            json!({}),
            json!({"content_url": " ", "meta": {"artifact_uri": 5}}),
            json!(null),
        ] {
            assert_eq!(path(missing), Err(PayloadError::MissingArtifactUri));
        }
    }

    #[test]
    fn fields_of_the_wrong_type_are_absent() {
        let row = json!({"content_url": "s3://b/k", "title": 5, "namespace": [], "description": "row",
                         "meta": {"title": {"a": 1}, "description": 7, "public_url": null, "tags": 5}});
        assert_eq!(
            payload(&row),
            Ok(
                json!({"artifact_uri": "s3://b/k", "published_path": "k", "description": "row",
                      "namespace": "pmoves", "tags": ["backfill"]})
            )
        );
    }

    #[test]
    fn a_path_in_any_text_counts_as_absent() {
        let item = json!({"Path": "/srv/a.mp4"});
        let row = json!({"title": "at /srv/a.mp4", "content_url": "s3://b/srv/a.mp4", "namespace": "/srv/a.mp4",
                         "thumbnail_url": "https://cdn/srv/a.mp4", "meta": {"description": "/srv/a.mp4", "public_url": "file:///srv/a.mp4",
                         "published_path": "/srv/a.mp4", "thumbnail_uri": "/srv/a.mp4", "tags": "a,/srv/a.mp4", "slug": "x/srv/a.mp4"}});
        assert_eq!(
            content_published_payload(&row, Some(&item), &PayloadSettings::default()),
            Ok(
                json!({"artifact_uri": "s3://b/srv/a.mp4", "published_path": "srv/a.mp4", "namespace": "pmoves",
                      "thumbnail_url": "https://cdn/srv/a.mp4", "tags": ["a", "backfill"]})
            )
        );
    }

    #[test]
    fn only_what_is_listed_leaves_and_no_path() {
        let item = json!({"Path": "D:/x", "Container": "D:/x", "ProductionYear": 1999, "PremiereDate": "2025-10-01"});
        let row = json!({"content_url": "s3://b/k", "meta": {
            "slug": "/srv/x", "artifact_type": "video/mp4", "secret": "s", "Path": "/srv", "production_year": "x"}});
        let settings = PayloadSettings {
            backfill_version: Some("v"),
            default_namespace: Some("other"),
            public_base: None,
        };
        let payload = content_published_payload(&row, Some(&item), &settings).expect("a payload");
        assert_eq!(
            payload["meta"],
            json!({"premiere_date": "2025-10-01", "production_year": 1999, "backfill_version": "v",
                   "artifact_type": "video/mp4"})
        );
        assert_eq!(payload["namespace"], "other");
    }
}
