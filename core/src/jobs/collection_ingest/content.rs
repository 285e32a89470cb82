//! Whether two statements about some bytes speak of the same bytes.

use std::borrow::Cow;

use crate::identity::content_signature;

/// What is known of a file's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content<'a> {
    /// SHA-256 as 64 hexadecimal digits; any other text says nothing.
    pub hash: Option<Cow<'a, str>>,
    /// Bytes; a negative one says nothing.
    pub size: Option<i64>,
    /// Microseconds since 1970-01-01 UTC. An infinite timestamp is no time: give `None`.
    pub mtime: Option<i64>,
}

impl Content<'_> {
    /// What a signature says; nothing of a text that is none.
    pub(super) fn of_signature(signature: &str) -> Content<'static> {
        let number = |text: &str| text.parse().ok();
        match Signature::read(signature) {
            Signature::Hash(hash) => Content {
                hash: Some(Cow::Owned(hash.to_owned())),
                ..Content::default()
            },
            Signature::Stat { size, mtime } => Content {
                hash: None,
                size: number(size),
                mtime: number(mtime),
            },
            Signature::Size(size) => Content {
                size: number(size),
                ..Content::default()
            },
            Signature::Other(_) => Content::default(),
        }
    }

    /// The signature from everything that is known.
    pub fn signature(&self) -> Option<String> {
        content_signature(self.hash.as_deref(), self.size, self.mtime)
    }

    fn of_hash(&self) -> Option<String> {
        content_signature(self.hash.as_deref(), None, None)
    }

    fn of_stat(&self) -> Option<String> {
        content_signature(None, self.size, Some(self.mtime?))
    }

    fn of_size(&self) -> Option<String> {
        content_signature(None, self.size, None)
    }

    /// The content without what says nothing, so that it is not written as if it were known.
    pub(super) fn usable(&self) -> Self {
        Content {
            hash: self.hash.clone().filter(|_| self.of_hash().is_some()),
            size: self.size.filter(|size| *size >= 0),
            mtime: self.mtime,
        }
    }
}

/// The signatures of both sides from the strongest facet that both know (hash, else size and mtime, else size), the pair
/// that [`super::ingest_decision`] takes. `(None, None)` without a common facet, which is no change.
///
/// Source: collection ingest rules, content.
pub fn comparable_signatures(stored: &Content<'_>, new: &Content<'_>) -> (Option<String>, Option<String>) {
    [Content::of_hash, Content::of_stat, Content::of_size]
        .into_iter()
        .map(|facet| (facet(stored), facet(new)))
        .find(|(stored, new)| stored.is_some() && new.is_some())
        .unwrap_or_default()
}

/// A content signature taken apart.
enum Signature<'s> {
    Hash(&'s str),
    Stat {
        size: &'s str,
        mtime: &'s str,
    },
    Size(&'s str),
    /// None of the forms that `content_signature` gives.
    Other(&'s str),
}

impl<'s> Signature<'s> {
    fn read(text: &'s str) -> Self {
        if let Some(hash) = text.strip_prefix("sha256:") {
            return Signature::Hash(hash);
        }
        if let Some(size) = text.strip_prefix("size:") {
            return Signature::Size(size);
        }
        match text.strip_prefix("stat:").and_then(|rest| rest.split_once(':')) {
            Some((size, mtime)) => Signature::Stat { size, mtime },
            None => Signature::Other(text),
        }
    }
}

/// Whether two signatures speak of different bytes, as far as their strongest common facet can tell.
pub(super) fn is_changed(stored: Option<&str>, new: Option<&str>) -> bool {
    let (Some(stored), Some(new)) = (stored, new) else {
        return false;
    };
    match (Signature::read(stored), Signature::read(new)) {
        (Signature::Hash(stored), Signature::Hash(new)) => !stored.eq_ignore_ascii_case(new),
        (
            Signature::Stat { size, mtime },
            Signature::Stat {
                size: new_size,
                mtime: new_mtime,
            },
        ) => (size, mtime) != (new_size, new_mtime),
        (
            Signature::Stat { size, .. } | Signature::Size(size),
            Signature::Stat { size: new_size, .. } | Signature::Size(new_size),
        ) => size != new_size,
        (Signature::Other(stored), Signature::Other(new)) => stored != new,
        // A hash and a size have nothing in common.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn content(hash: Option<&'static str>, size: Option<i64>, mtime: Option<i64>) -> Content<'static> {
        Content {
            hash: hash.map(Cow::Borrowed),
            size,
            mtime,
        }
    }

    #[test]
    fn the_strongest_common_facet_is_compared() {
        let pair = |stored, new| {
            let (stored, new) = comparable_signatures(&stored, &new);
            (stored.as_deref() == new.as_deref(), stored)
        };
        let all = content(Some(HASH), Some(1), Some(2));
        assert_eq!(
            pair(all.clone(), content(Some(HASH), Some(9), None)),
            (true, Some(format!("sha256:{HASH}")))
        );
        assert_eq!(
            pair(all.clone(), content(None, Some(1), Some(3))),
            (false, Some("stat:1:2".into()))
        );
        assert_eq!(
            pair(all.clone(), content(Some("md5:1"), Some(1), None)),
            (true, Some("size:1".into()))
        );
        assert_eq!(pair(all.clone(), content(None, None, Some(3))), (true, None));
        assert_eq!(pair(all, content(None, Some(-1), Some(3))), (true, None));
    }

    #[test]
    fn signatures_of_unlike_facets_are_no_change() {
        for (stored, new, changed) in [
            ("stat:1:2", "stat:1:3", true),
            ("stat:1:2", "size:1", false),
            ("size:2", "stat:1:2", true),
            ("sha256:a", "size:1", false),
            ("sha256:a", "sha256:A", false),
            ("odd", "other", true),
            ("odd", "odd", false),
            ("odd", "size:1", false),
        ] {
            assert_eq!(is_changed(Some(stored), Some(new)), changed, "{stored} {new}");
        }
        assert!(!is_changed(None, Some("size:1")) && !is_changed(Some("size:1"), None));
    }
}
