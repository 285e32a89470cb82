//! The canonical address of a link.

use std::borrow::Cow;

use url::{Host, Url};

use super::markup::iframe_source;
use super::signature_parameters::without_signature;
use super::text::{normalize_percent, percent_decode, scheme_of, trim};

/// The canonical form of `link`, `None` for text that is no link to media: another scheme than http, https, s3, gs,
/// rtmp, rtmps and rtsp, markup without an iframe, plain words.
///
/// Only the normalisation of RFC 3986 §6.2.2–6.2.3 is done, so two addresses that a server may tell apart stay apart:
/// parameters are neither sorted nor dropped, `%2F` stays. What goes is userinfo, signature parameters and a fragment
/// that is no hash route. A root-relative link stays as it is.
///
/// Source: identity rules, `canonical_url`.
pub fn canonical_url(link: &str) -> Option<String> {
    match Link::parse(link)? {
        Link::RootRelative(path) => Some(path.into_owned()),
        Link::Absolute(absolute) => Some(absolute.canonical()),
    }
}

/// A link that has a canonical form.
pub(super) enum Link<'a> {
    RootRelative(Cow<'a, str>),
    Absolute(AbsoluteLink),
}

impl<'a> Link<'a> {
    pub(super) fn parse(link: &'a str) -> Option<Self> {
        let text = match unescape_ampersands(trim(link)) {
            Cow::Borrowed(text) => Cow::Borrowed(markup_source(text)?),
            Cow::Owned(text) => Cow::Owned(markup_source(&text)?.to_owned()),
        };
        if text.starts_with('/') && !text.starts_with("//") {
            return Some(Link::RootRelative(text));
        }
        AbsoluteLink::parse(&with_scheme(&text)).map(Link::Absolute)
    }

    pub(super) fn canonical(&self) -> String {
        match self {
            Link::RootRelative(path) => path.clone().into_owned(),
            Link::Absolute(absolute) => absolute.canonical(),
        }
    }
}

/// `&amp;` un-escaped at most twice: links are pasted from HTML, sometimes from HTML inside HTML.
fn unescape_ampersands(text: &str) -> Cow<'_, str> {
    if !text.contains("&amp;") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("&amp;", "&").replace("&amp;", "&"))
}

/// Text that starts with `<` is markup and stands for the source of its first iframe.
fn markup_source(text: &str) -> Option<&str> {
    if text.starts_with('<') {
        iframe_source(text)
    } else {
        Some(text)
    }
}

fn with_scheme(text: &str) -> Cow<'_, str> {
    if text.starts_with("//") {
        Cow::Owned(format!("https:{text}"))
    } else if is_schemeless_link(text) {
        Cow::Owned(format!("https://{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether `text` begins with something that looks like a host and not with a scheme.
fn is_schemeless_link(text: &str) -> bool {
    let segment = text.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if let Some(scheme) = scheme_of(segment) {
        // `name.tld:8080` is host and port, `name:8080` is not.
        let port = &segment[scheme.len() + 1..];
        return has_inner_dot(scheme) && super::text::is_digits(port);
    }
    has_inner_dot(segment) && !segment.contains(|c: char| c.is_whitespace() || c == '@')
}

/// A dot between two other characters.
fn has_inner_dot(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|window| window[1] == b'.' && window[0] != b'.' && window[2] != b'.')
}

/// A parsed link with a host.
pub(super) struct AbsoluteLink {
    url: Url,
    /// The host in lower case for the schemes whose host the `url` crate leaves as it stands.
    host: Option<String>,
}

impl AbsoluteLink {
    /// Parses a text that already has its scheme.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let written = url.host_str().filter(|host| !host.is_empty())?;
        let host = match url.scheme() {
            "http" | "https" => None,
            // A bucket name is case-sensitive.
            "s3" | "gs" => Some(normalize_percent(written).into_owned()),
            "rtmp" | "rtmps" | "rtsp" => Some(Host::parse(written).ok()?.to_string()),
            _ => return None,
        };
        Some(AbsoluteLink { url, host })
    }

    pub(super) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// Whether this is an address of the web, the only kind that platforms are recognised by.
    pub(super) fn is_web(&self) -> bool {
        matches!(self.url.scheme(), "http" | "https")
    }

    fn host(&self) -> &str {
        self.host.as_deref().or(self.url.host_str()).unwrap_or_default()
    }

    /// The host without its one trailing dot.
    pub(super) fn site(&self) -> &str {
        let host = self.host();
        host.strip_suffix('.').unwrap_or(host)
    }

    /// Whether the host is `domain` or one of its sub-domains, compared by whole labels.
    pub(super) fn is_on(&self, domain: &str) -> bool {
        let site = self.site();
        site.strip_suffix(domain)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }

    /// The path, percent-encoding normalised; it starts with `/`.
    pub(super) fn path(&self) -> Cow<'_, str> {
        match self.url.path() {
            "" => Cow::Borrowed("/"),
            path => normalize_percent(path),
        }
    }

    /// The query without signature parameters, percent-encoding normalised.
    pub(super) fn query(&self) -> Option<Cow<'_, str>> {
        without_signature(normalize_percent(self.url.query()?))
    }

    pub(super) fn fragment(&self) -> Option<Cow<'_, str>> {
        self.url.fragment().map(normalize_percent)
    }

    /// The first query parameter called `name`, decoded, when it is not empty.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query()?;
        super::text::first_parameter(&query, name)
            .filter(|value| !value.is_empty())
            .map(Cow::into_owned)
    }

    /// The path percent-decoded, without its leading slash.
    pub(super) fn decoded_path(&self) -> Option<String> {
        let path = self.path();
        percent_decode(path.strip_prefix('/').unwrap_or(&path)).map(Cow::into_owned)
    }

    /// Scheme, host and port: the canonical URL up to its path.
    pub(super) fn origin(&self) -> String {
        let mut origin = String::with_capacity(self.url.as_str().len() + 1);
        origin.push_str(self.scheme());
        origin.push_str("://");
        origin.push_str(self.host());
        if let Some(port) = self.url.port() {
            origin.push(':');
            origin.push_str(&port.to_string());
        }
        origin
    }

    pub(super) fn canonical(&self) -> String {
        let mut canonical = self.origin();
        canonical.push_str(&self.path());
        if let Some(query) = self.query() {
            canonical.push('?');
            canonical.push_str(&query);
        }
        // A fragment that begins so is the route of a single-page application, another page.
        if let Some(route) = self.fragment().filter(|fragment| fragment.starts_with(['/', '!'])) {
            canonical.push('#');
            canonical.push_str(&route);
        }
        canonical
    }
}

#[cfg(test)]
mod tests {
    use super::canonical_url;

    fn assert_canonical(link: &str, expected: Option<&str>) {
        assert_eq!(canonical_url(link).as_deref(), expected, "{link:?}");
    }

    #[test]
    fn links_without_scheme() {
        assert_canonical("e.test", Some("https://e.test/"));
        assert_canonical("e.test:8080", Some("https://e.test:8080/"));
        assert_canonical("e.test\\a", Some("https://e.test/a"));
        assert_canonical("my_host.test:81?x", Some("https://my_host.test:81/?x"));
        assert_canonical("127.0.0.1:9000/b", Some("https://127.0.0.1:9000/b"));
        assert_canonical("localhost:8080/a", None);
        assert_canonical("e.test:port/a", None);
        assert_canonical("user@e.test/a", None);
        assert_canonical("a.b c/d", None);
        assert_canonical(".e/a", None);
        assert_canonical("e./a", None);
        assert_canonical("a/b.c", None);
        assert_canonical("e.test:99999/a", None);
    }

    #[test]
    fn escaped_ampersands() {
        assert_canonical("https://e.test/?a&amp;b&amp;amp;c", Some("https://e.test/?a&b&c"));
        assert_canonical("https://e.test/?a&amp;amp;amp;b", Some("https://e.test/?a&amp;b"));
        assert_canonical("/x?a&amp;b", Some("/x?a&b"));
    }

    #[test]
    fn hosts_and_ports() {
        assert_canonical("https://User:pw@E.Test.:443/", Some("https://e.test./"));
        assert_canonical("s3://My_Bucket", Some("s3://My_Bucket/"));
        assert_canonical("gs://My-Bucket/A%7eb", Some("gs://My-Bucket/A~b"));
        assert_canonical("rtsp://Пример.РФ:554", Some("rtsp://xn--e1afmkfd.xn--p1ai:554/"));
        assert_canonical("rtmp:///x", None);
        assert_canonical("s3:bucket/key", None);
        assert_canonical("https://", None);
    }

    #[test]
    fn queries_and_fragments() {
        assert_canonical("https://e.test/a?", Some("https://e.test/a?"));
        assert_canonical("https://e.test/a?X-Goog-Date=1", Some("https://e.test/a"));
        assert_canonical("https://e.test/a?#!/b%7E", Some("https://e.test/a?#!/b~"));
        assert_canonical("https://e.test/#/route?x=1", Some("https://e.test/#/route?x=1"));
        assert_canonical("https://e.test/a?x=%7e%2f%", Some("https://e.test/a?x=~%2F%"));
    }
}
