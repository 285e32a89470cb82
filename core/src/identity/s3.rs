//! Links to objects in Amazon S3.

use super::canonical_url::{AbsoluteLink, Link};
use super::media_link::Recognized;
use super::text::{all_bytes, percent_encode, scheme_of, strip_prefix_ignore_case, trim};

const PROVIDER: &str = "s3";

/// Where an S3 endpoint finds the bucket.
enum Addressing {
    /// The bucket is in front of the endpoint: all labels before it.
    VirtualHosted(String),
    /// The bucket is the first segment of the path.
    Path,
}

/// `bucket/key` of an `s3` locator: an S3 URL in any form, or bucket and key taken as they are. `None` without bucket or
/// key, for an access point, and for a link with a scheme that is no S3 URL.
pub(super) fn object_of_locator(locator: &str) -> Option<String> {
    let locator = trim(locator);
    if strip_prefix_ignore_case(locator, "s3://").is_some() {
        return object_of_uri(locator);
    }
    if let Some(Link::Absolute(link)) = Link::parse(locator) {
        if let Some(object) = addressing(&link).and_then(|addressing| object(&link, addressing)) {
            return Some(object);
        }
    }
    if scheme_of(locator).is_some() || locator.starts_with('<') {
        return None;
    }
    split_object(locator).map(|_| locator.to_owned())
}

/// An object in a bucket, with the address of the bucket as the URL wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Object {
    pub bucket: String,
    /// Percent-decoded once in a web address, as it stands in an `s3://` one.
    pub key: String,
    /// The URL of the bucket, with a slash at its end.
    base: String,
}

impl S3Object {
    /// The URL of another key of the same bucket, in the same style and on the same endpoint.
    pub fn sibling_url(&self, key: &str) -> String {
        join_key(&self.base, key)
    }
}

/// `base`, one slash, and the key percent-encoded but for its slashes.
pub fn join_key(base: &str, key: &str) -> String {
    let base = base.trim_end_matches('/');
    format!("{base}/{}", percent_encode(key.trim_start_matches('/'), b"/"))
}

/// The object that an S3 URL in any form points to; `None` for any other text, `bucket/key` without a scheme or host
/// included.
pub fn s3_object_of_url(url: &str) -> Option<S3Object> {
    let text = trim(url);
    if strip_prefix_ignore_case(text, "s3://").is_some() {
        let object = object_of_uri(text)?;
        let (bucket, key) = split_object(&object)?;
        return Some(S3Object {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            base: format!("s3://{bucket}/"),
        });
    }
    let Link::Absolute(link) = Link::parse(text)? else {
        return None;
    };
    let addressing = addressing(&link)?;
    let in_host = matches!(addressing, Addressing::VirtualHosted(_));
    let object = object(&link, addressing)?;
    let (bucket, key) = split_object(&object)?;
    let origin = link.origin();
    Some(S3Object {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        base: if in_host {
            format!("{origin}/")
        } else {
            format!("{origin}/{bucket}/")
        },
    })
}

pub(super) fn recognize(link: &AbsoluteLink) -> Option<Recognized> {
    let object = object(link, addressing(link)?);
    let mut recognized = Recognized::of(PROVIDER, "object", object, link);
    recognized.facets.add_parameter(link, "versionId");
    Some(recognized)
}

/// What an `s3://` link points to. Its key is taken from the text as it is: a `?` or a `#` belongs to the name.
pub(super) fn recognize_uri(text: &str) -> Option<Recognized> {
    let text = trim(text);
    if bucket_of_uri(text).is_some_and(|bucket| !is_bucket(bucket)) {
        return None;
    }
    Some(match object_of_uri(text) {
        Some(object) => Recognized {
            media_kind: "object",
            media_id: Some(object),
            ..Recognized::without_id(PROVIDER)
        },
        None => Recognized::without_id(PROVIDER),
    })
}

fn bucket_of_uri(text: &str) -> Option<&str> {
    strip_prefix_ignore_case(text, "s3://")?.split('/').next()
}

fn object_of_uri(text: &str) -> Option<String> {
    let object = strip_prefix_ignore_case(text, "s3://")?;
    let (bucket, _) = split_object(object)?;
    is_bucket(bucket).then(|| object.to_owned())
}

/// Bucket and key, neither of them empty.
fn split_object(object: &str) -> Option<(&str, &str)> {
    object
        .split_once('/')
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
}

/// The characters of a bucket name, without the names that are reserved for aliases of access points: such an alias is
/// not the bucket, and which bucket it is only AWS knows.
fn is_bucket(name: &str) -> bool {
    all_bytes(name, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
    }) && !["-s3alias", "--ol-s3", ".mrap"]
        .iter()
        .any(|alias| name.ends_with(alias))
}

fn object(link: &AbsoluteLink, addressing: Addressing) -> Option<String> {
    let path = link.decoded_path()?;
    let object = match addressing {
        Addressing::VirtualHosted(bucket) => format!("{bucket}/{path}"),
        Addressing::Path => path,
    };
    split_object(&object)?;
    Some(object)
}

/// How an S3 endpoint is addressed, `None` for any other host and for access points.
fn addressing(link: &AbsoluteLink) -> Option<Addressing> {
    if !link.is_web() {
        return None;
    }
    let site = link.site();
    let before = site
        .strip_suffix(".amazonaws.com")
        .or_else(|| site.strip_suffix(".amazonaws.com.cn"))?;
    let (endpoint, bucket) = split_endpoint(before)?;
    let addressing = if bucket.is_empty() {
        Addressing::Path
    } else {
        Addressing::VirtualHosted(bucket.to_owned())
    };
    let bucket = match &addressing {
        Addressing::VirtualHosted(bucket) => bucket.clone(),
        Addressing::Path if endpoint == Endpoint::BucketInHost => return None,
        // An ARN in the place of the bucket is an access point.
        Addressing::Path => match link.decoded_path()?.split('/').next()? {
            "" => return Some(addressing),
            bucket => bucket.to_owned(),
        },
    };
    is_bucket(&bucket).then_some(addressing)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Regular,
    /// Websites and acceleration know no path style.
    BucketInHost,
}

/// Splits the labels before `amazonaws.com` into the endpoint, read from the right, and the bucket before it: a bucket
/// may hold dots and may be called `s3`.
fn split_endpoint(labels: &str) -> Option<(Endpoint, &str)> {
    let (before, last) = cut_last(labels);
    if let Some(endpoint) = legacy_endpoint(last) {
        return Some((endpoint, before));
    }
    if last == "dualstack" {
        let (before, service) = cut_last(before);
        return (service == "s3-accelerate").then_some((Endpoint::BucketInHost, before));
    }
    if !is_region(last) {
        return None;
    }
    let (before, service) = match cut_last(before) {
        (before, "dualstack") => cut_last(before),
        other => other,
    };
    match service {
        "s3" | "s3-fips" => Some((Endpoint::Regular, before)),
        "s3-website" => Some((Endpoint::BucketInHost, before)),
        _ => None,
    }
}

/// Endpoints of one label: no region, or the region after a dash.
fn legacy_endpoint(label: &str) -> Option<Endpoint> {
    if label == "s3" {
        return Some(Endpoint::Regular);
    }
    let rest = label.strip_prefix("s3-")?;
    if rest == "accelerate" || rest.strip_prefix("website-").is_some_and(is_region) {
        return Some(Endpoint::BucketInHost);
    }
    let other_service = [
        "accesspoint",
        "outposts",
        "object-lambda",
        "control",
        "global",
        "website",
        "deprecated",
    ]
    .iter()
    .any(|service| rest.starts_with(service));
    (!other_service && is_region(rest)).then_some(Endpoint::Regular)
}

/// Anything of the form of a region, which have at least one dash: AWS adds some every year.
fn is_region(label: &str) -> bool {
    label.contains('-')
        && !label.starts_with("s3")
        && all_bytes(label, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The labels before the last one, and the last one.
fn cut_last(labels: &str) -> (&str, &str) {
    labels.rsplit_once('.').unwrap_or(("", labels))
}

#[cfg(test)]
mod tests {
    use super::{object_of_locator, s3_object_of_url};

    #[test]
    fn siblings_keep_endpoint_and_style() {
        for (url, sibling) in [
            (
                "https://b.s3.us-east-1.amazonaws.com/k/a.mp4?X-Amz-Signature=1",
                "https://b.s3.us-east-1.amazonaws.com/p/a%20b.txt",
            ),
            (
                "http://s3.amazonaws.com:8080/b/k",
                "http://s3.amazonaws.com:8080/b/p/a%20b.txt",
            ),
            (
                "b.s3-us-west-2.amazonaws.com/k",
                "https://b.s3-us-west-2.amazonaws.com/p/a%20b.txt",
            ),
            ("S3://b/k", "s3://b/p/a%20b.txt"),
        ] {
            let object = s3_object_of_url(url).expect(url);
            assert_eq!(object.bucket, "b", "{url}");
            assert_eq!(object.sibling_url("p/a b.txt"), sibling, "{url}");
            assert_eq!(object.sibling_url("/p/a b.txt"), sibling, "{url}");
            // An s3:// address is taken as it stands, in both directions of identity.
            let key = s3_object_of_url(sibling).map(|object| object.key);
            let wanted = if sibling.starts_with("s3:") {
                "p/a%20b.txt"
            } else {
                "p/a b.txt"
            };
            assert_eq!(key.as_deref(), Some(wanted), "{url}");
        }
        for none in [
            "b/k",
            "https://cdn.example.com/b/k",
            "http://localhost:9000/b/k",
            "",
            "s3://b",
            "/b/k",
        ] {
            assert_eq!(s3_object_of_url(none), None, "{none}");
        }
    }

    #[test]
    fn objects_of_all_forms() {
        for locator in [
            "b.c/k/a.mp4",
            "s3://b.c/k/a.mp4",
            "S3://b.c/k/a.mp4",
            "https://s3.amazonaws.com/b.c/k/a.mp4",
            "//s3.amazonaws.com/b.c/k/a.mp4",
            "s3.amazonaws.com/b.c/k/a.mp4",
            "http://s3-us-west-2.amazonaws.com/b.c/k/a.mp4",
            "https://s3-external-1.amazonaws.com/b.c/k/a.mp4",
            "https://s3.us-gov-west-1.amazonaws.com/b.c/k/%61.mp4",
            "https://s3.dualstack.eu-west-1.amazonaws.com/b.c/k/a.mp4",
            "https://b.c.s3.amazonaws.com/k/a.mp4?X-Amz-Signature=1",
            "https://b.c.s3.amazonaws.com./k/a.mp4",
            "https://b.c.s3-eu-west-1.amazonaws.com:443/k/a.mp4",
            "https://b.c.s3.dualstack.eu-west-1.amazonaws.com/k/a.mp4",
            "https://b.c.s3-accelerate.amazonaws.com/k/a.mp4",
            "https://b.c.s3-accelerate.dualstack.amazonaws.com/k/a.mp4",
            "https://b.c.s3-fips.us-east-1.amazonaws.com/k/a.mp4",
            "https://b.c.s3.cn-north-1.amazonaws.com.cn/k/a.mp4",
            "http://b.c.s3-website-us-east-1.amazonaws.com/k/a.mp4",
            "http://b.c.s3-website.eu-central-1.amazonaws.com/k/a.mp4",
        ] {
            assert_eq!(object_of_locator(locator).as_deref(), Some("b.c/k/a.mp4"), "{locator}");
        }
    }

    #[test]
    fn keys_are_decoded_once_and_only_in_web_links() {
        assert_eq!(
            object_of_locator("https://b.s3.amazonaws.com/A%2520+%D0%B2%2Fc").as_deref(),
            Some("b/A%20+в/c")
        );
        assert_eq!(object_of_locator("s3://B/a%20b?c#d").as_deref(), Some("B/a%20b?c#d"));
        assert_eq!(
            object_of_locator("https://b.s3.amazonaws.com//k").as_deref(),
            Some("b//k")
        );
    }

    #[test]
    fn what_is_no_object() {
        for locator in [
            "b",
            "b/",
            "/k",
            "s3://b",
            "s3:///k",
            "s3:b/k",
            "gs://b/k",
            "https://s3.amazonaws.com/b",
            "https://b.s3.amazonaws.com/",
            "https://b.s3.amazonaws.com.evil.example/k",
            "https://ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com/k",
            "https://ap-123456789012.s3-accesspoint.dualstack.us-east-1.amazonaws.com/k",
            "https://ap-123456789012.s3-accesspoint-fips.us-east-1.amazonaws.com/k",
            "https://x.accesspoint.s3-global.amazonaws.com/k",
            "https://ap-1.s3-object-lambda.us-east-1.amazonaws.com/k",
            "https://b.s3express-use1-az4.us-east-1.amazonaws.com/k",
            "https://ap-abc-s3alias.s3.us-east-1.amazonaws.com/k",
            "https://s3.us-east-1.amazonaws.com/arn:aws:s3:us-east-1:1:accesspoint/k",
            "s3://arn:aws:s3:us-east-1:1:accesspoint/ap/k",
            "s3://ap-abc-s3alias/k",
            "https://b.s3.amazonaws.com/a%00b",
        ] {
            assert_eq!(object_of_locator(locator), None, "{locator}");
        }
    }
}
