//! A link that several rules ask, parsed once.

use super::canonical_url::canonical_url;
use super::key::key_of_url;
use super::mime_type::type_of_canonical_url;

/// The canonical URL of a link and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: String,
}

impl Address {
    /// `None` for a link that [`canonical_url`] refuses.
    pub fn of(link: &str) -> Option<Self> {
        canonical_url(link).map(|url| Address { url })
    }

    /// What [`super::infer_mime_type`] says of the link alone.
    pub fn mime_type(&self) -> Option<String> {
        type_of_canonical_url(&self.url)
    }

    /// What [`super::asset_canonical_key`] says of the link for a provider whose assets have no ids.
    pub fn key(&self, provider: &str, kind: &str) -> Option<String> {
        key_of_url(provider, &self.url, kind)
    }

    pub fn into_url(self) -> String {
        self.url
    }
}
