//! The canonical key of an asset.

use super::canonical_url::canonical_url;
use super::google_drive::google_drive_file_id;
use super::path::normalize_path;
use super::s3::object_of_locator;
use super::text::{is_hex, sha256_hex, trim};
use super::youtube::{is_video_id, plain_video_id, youtube_video_id};

/// The version of the rules behind [`asset_canonical_key`]. Keys stand in unique indexes: whatever changes one of them
/// is a new version.
pub const ASSET_KEY_VERSION: i32 = 1;

/// Longest key in bytes that is written out; longer ones are hashed, so that a unique B-tree index holds every key.
const LONGEST_KEY: usize = 1_000;

/// Longest entry in bytes that a B-tree index takes with room for its other columns (PostgreSQL refuses 2,705). Only an
/// absurd provider name can make a hashed key so long.
const LONGEST_ENTRY: usize = 2_600;

/// The canonical key of an asset: equal for all locators of one asset, different for different assets.
///
/// - `provider`: ASCII case and outer blanks play no part; blank gives `None`
/// - `locator`: storage key, link, file id, path or item id, as the provider has it; blank gives `None`
/// - `kind`: the asset's kind, part of the key where the provider has no ids; `None` or blank is `other`
///
/// `None` where the locator identifies nothing: a link without canonical URL, a Jellyfin id that is no UUID, an S3 URL
/// without a key.
///
/// Source: identity rules, `asset_canonical_key`.
pub fn asset_canonical_key(provider: &str, locator: &str, kind: Option<&str>) -> Option<String> {
    let provider = trim(provider);
    let trimmed = trim(locator);
    if provider.is_empty() || trimmed.is_empty() {
        return None;
    }
    let is = |name: &str| provider.eq_ignore_ascii_case(name);
    let address = || canonical_url(trimmed).map(|url| key_of(provider, &[kind_name(kind), ":", &url]));
    let key = if is("upload") {
        Some(key_of("upload", &[trimmed]))
    } else if is("youtube") {
        youtube_key(trimmed).or_else(address)
    } else if is("google_drive") {
        google_drive_file_id(trimmed)
            .map(|id| key_of("google_drive", &[&id]))
            .or_else(address)
    } else if is("filesystem") {
        // Blanks belong to a name.
        return path_canonical_key(locator, true);
    } else if is("plex") {
        Some(key_of("plex", &[trimmed]))
    } else if is("jellyfin") {
        jellyfin_id(trimmed).map(|id| key_of("jellyfin", &[&id]))
    } else if is("s3") {
        object_of_locator(trimmed).map(|object| key_of("s3", &[&object]))
    } else {
        address()
    }?;
    shorten(provider, key)
}

/// The canonical key of a file, where `case_sensitive` says whether two spellings of a name are two files. With true it is
/// [`asset_canonical_key`] of provider `filesystem`. `None` for a blank path.
///
/// Source: collection ingest rules, the key of an item.
pub fn path_canonical_key(path: &str, case_sensitive: bool) -> Option<String> {
    if trim(path).is_empty() {
        return None;
    }
    let path = normalize_path(path, case_sensitive)?;
    shorten("filesystem", key_of("filesystem", &[&path]))
}

/// The key of an asset that is known by its canonical URL alone, as [`asset_canonical_key`] gives it for a link of a
/// provider without ids.
pub(super) fn key_of_url(provider: &str, url: &str, kind: &str) -> Option<String> {
    shorten(provider, key_of(provider, &[kind_name(Some(kind)), ":", url]))
}

/// The canonical key of an existing asset row: of `storage_key` for `upload`; of `storage_key`, else `source_url`, for
/// `google_drive`; of `source_url` and `kind` for all others. `None` where the row's fields give no key.
///
/// Source: lesson media rules, keys of rows without one.
pub fn row_canonical_key(
    provider: Option<&str>,
    storage_key: Option<&str>,
    source_url: Option<&str>,
    kind: Option<&str>,
) -> Option<String> {
    let name = provider?;
    let is = |wanted: &str| trim(name).eq_ignore_ascii_case(wanted);
    let locator = if is("upload") {
        storage_key
    } else if is("google_drive") {
        storage_key.filter(|key| !trim(key).is_empty()).or(source_url)
    } else {
        source_url
    };
    asset_canonical_key(name, locator?, kind)
}

fn kind_name(kind: Option<&str>) -> &str {
    kind.map(trim).filter(|kind| !kind.is_empty()).unwrap_or("other")
}

/// `<provider>:` in ASCII lower case and the parts, in one allocation.
fn key_of(provider: &str, parts: &[&str]) -> String {
    let length = provider.len() + 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = String::with_capacity(length);
    key.push_str(provider);
    key.make_ascii_lowercase();
    key.push(':');
    for part in parts {
        key.push_str(part);
    }
    key
}

fn shorten(provider: &str, key: String) -> Option<String> {
    if key.len() <= LONGEST_KEY {
        return Some(key);
    }
    let hashed = key_of(provider, &["sha256:", &sha256_hex(key.as_bytes())]);
    (hashed.len() <= LONGEST_ENTRY).then_some(hashed)
}

/// A field that says YouTube may hold a bare id.
fn youtube_key(locator: &str) -> Option<String> {
    if let Some(id) = Some(locator)
        .filter(|id| is_video_id(id))
        .or_else(|| plain_video_id(locator))
    {
        return Some(key_of("youtube", &["video:", id]));
    }
    youtube_video_id(locator).map(|id| key_of("youtube", &["video:", &id]))
}

/// A Jellyfin item id, 32 hexadecimal digits or a dashed UUID, as 32 digits in lower case.
fn jellyfin_id(locator: &str) -> Option<String> {
    let digits = match locator.len() {
        32 => locator.to_ascii_lowercase(),
        36 if [8, 13, 18, 23].iter().all(|&at| locator.as_bytes()[at] == b'-') => {
            locator.replace('-', "").to_ascii_lowercase()
        }
        _ => return None,
    };
    (digits.len() == 32 && is_hex(&digits)).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_key(provider: &str, locator: &str, expected: Option<&str>) {
        assert_eq!(
            asset_canonical_key(provider, locator, Some("video")).as_deref(),
            expected,
            "{provider} {locator}"
        );
    }

    #[test]
    fn jellyfin_ids() {
        let id = "f27caa37e5142225cceded48f6553502";
        assert_key("Jellyfin", &id.to_uppercase(), Some(&format!("jellyfin:{id}")));
        assert_key(
            "jellyfin",
            "F27CAA37-E514-2225-cced-ed48f6553502",
            Some(&format!("jellyfin:{id}")),
        );
        assert_key("jellyfin", "f27caa37-e514-2225-cced-ed48f65535-2", None);
        assert_key("jellyfin", "{f27caa37e5142225cceded48f6553502}", None);
        assert_key("jellyfin", "ĳĳĳĳĳĳĳĳĳĳĳĳĳĳĳĳ", None);
    }

    #[test]
    fn blank_fields() {
        assert_eq!(
            asset_canonical_key("generic", "e.test", Some(" ")).as_deref(),
            Some("generic:other:https://e.test/")
        );
        assert_eq!(
            asset_canonical_key("generic", "e.test", None).as_deref(),
            Some("generic:other:https://e.test/")
        );
        assert_key("filesystem", " ", None);
        assert_key("filesystem", " a ", Some("filesystem: a "));
        assert_key("plex", " 123\n", Some("plex:123"));
    }

    #[test]
    fn keys_of_rows() {
        let key = |provider, storage, source| row_canonical_key(Some(provider), storage, source, Some("video"));
        assert_eq!(
            key("upload", Some("k"), Some("https://e.test/")).as_deref(),
            Some("upload:k")
        );
        assert_eq!(key("upload", None, Some("https://e.test/")), None);
        assert_eq!(
            key("google_drive", Some("1a"), None).as_deref(),
            Some("google_drive:1a")
        );
        let link = Some("https://drive.google.com/file/d/2b/view");
        assert_eq!(key("google_drive", Some(" "), link).as_deref(), Some("google_drive:2b"));
        assert_eq!(
            key("youtube", Some("k"), Some("youtu.be/Zz0_-9yXwVu")).as_deref(),
            Some("youtube:video:Zz0_-9yXwVu")
        );
        assert_eq!(key("generic", Some("k"), None), None);
        assert_eq!(row_canonical_key(None, Some("k"), None, None), None);
    }
}
