//! One request and what came of it.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::http::HeaderMap;
use ureq::tls::TlsConfig;
use ureq::Agent;

use super::roots::roots;
use super::tries::LONGEST_WAIT;
use crate::failure::{with_causes, Cause, Failure};

/// Answers above this are refused: 64 MiB.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;
/// A server that asks for a longer rest is taken to ask for this one: a day.
const LONGEST_REST: Duration = Duration::from_secs(24 * 3600);

/// A server, by its base address.
pub struct Server {
    agent: Agent,
    base: String,
    /// Says who asks.
    token: Option<String>,
}

/// Why a request has no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// 401 or 403: no request of ours will be answered.
    Refused(u16),
    /// Nobody is there, or nobody that we trust: no request of ours gets through.
    Unreachable {
        what: String,
        /// Its certificate is not one that we take.
        untrusted: bool,
    },
    /// It may go well next time.
    Passing {
        /// `None` when there was no answer at all.
        status: Option<u16>,
        what: String,
        retry_after: Option<Duration>,
    },
    /// It will not.
    Lasting { status: u16, what: String },
    /// It was not made: the call has ended meanwhile.
    Stopped,
}

impl Trouble {
    /// In one line, for people.
    pub fn text(&self) -> String {
        match self {
            Trouble::Refused(status) => format!("HTTP {status}: the server refuses us"),
            Trouble::Passing {
                status: Some(status),
                what,
                ..
            }
            | Trouble::Lasting { status, what } => {
                format!("HTTP {status}: {what}")
            }
            Trouble::Passing { what, .. } | Trouble::Unreachable { what, .. } => what.clone(),
            Trouble::Stopped => "the call has ended".to_owned(),
        }
    }

    /// Whether another try may go well.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Trouble::Passing { .. } | Trouble::Unreachable { untrusted: false, .. }
        )
    }

    /// How long the server asks us to stay away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Trouble::Passing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// An answer that cannot be used, though its status says that all is well.
    pub fn unusable(what: impl Into<String>) -> Self {
        Trouble::Passing {
            status: Some(200),
            what: what.into(),
            retry_after: None,
        }
    }
}

impl Server {
    /// `variable` is where `base` came from; `ca_file` a PEM file of the authorities to trust, in the place of the system's.
    ///
    /// # Errors
    /// Validation, for an address, a key or a file that cannot be used.
    pub fn new(
        variable: &str,
        base: &str,
        token: Option<String>,
        timeout: Duration,
        ca_file: Option<&Path>,
    ) -> Result<Self, Failure> {
        let refused = |what: &str| {
            Failure::new(Cause::Validation, format!("{variable} {what}")).hint(format!(
                "export {variable}=https://example.org, with a path where the server has one"
            ))
        };
        let rest = ["http://", "https://"]
            .into_iter()
            .find_map(|scheme| base.strip_prefix(scheme));
        match rest {
            None | Some("") => return Err(refused("is no http address")),
            // It would stand in messages.
            Some(rest) if rest.split('/').next().unwrap_or_default().contains('@') => {
                return Err(refused("holds a user or password, which belong elsewhere"))
            }
            Some(rest) if rest.contains(['?', '#', ' ']) => return Err(refused("is more than an address and a path")),
            Some(_) => {}
        }
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
        {
            return Err(Failure::new(
                Cause::Validation,
                "the key is not made of letters, digits and signs",
            ));
        }
        let tls = TlsConfig::builder();
        let tls = if base.starts_with("https://") || ca_file.is_some() {
            tls.root_certs(roots(ca_file)?)
        } else {
            tls
        };
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A token is not carried to wherever a server points.
            .max_redirects(0)
            .user_agent(concat!("media-assets/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Server {
            agent,
            base: base.trim_end_matches('/').to_owned(),
            token,
        })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET of `path` with a query.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Trouble> {
        let mut request = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("Accept", "application/json");
        if let Some(token) = &self.token {
            // The first is what every Jellyfin of today takes, the second what version 12 takes without legacy options.
            request = request
                .header("X-Emby-Token", token)
                .header("Authorization", format!("MediaBrowser Token=\"{token}\""));
        }
        for (name, value) in query {
            request = request.query(*name, value);
        }
        self.answer(request.call())
    }

    /// POST of a JSON body to `path`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Trouble> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Accept", "application/json")
            .content_type("application/json");
        self.answer(request.send(body.to_string()))
    }

    fn answer(&self, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Trouble> {
        let no_answer = |error: ureq::Error| self.no_answer(&error);
        let mut response = result.map_err(no_answer)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        if matches!(status, 401 | 403) {
            return Err(Trouble::Refused(status));
        }
        let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let body = match body {
            Ok(body) => body,
            Err(error) if (200..300).contains(&status) => return Err(no_answer(error)),
            Err(_) => String::new(),
        };
        let what = || {
            let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
            let short: String = self.without_token(&line).chars().take(200).collect();
            if short.is_empty() {
                "an empty answer".to_owned()
            } else {
                short
            }
        };
        match status {
            200..=299 => serde_json::from_str(&body)
                .map_err(|error| Trouble::unusable(format!("the answer is no JSON ({error}): {}", what()))),
            408 | 425 | 429 | 500..=599 => Err(Trouble::Passing {
                status: Some(status),
                what: what(),
                retry_after,
            }),
            _ => Err(Trouble::Lasting { status, what: what() }),
        }
    }

    fn no_answer(&self, error: &ureq::Error) -> Trouble {
        let what = self.without_token(&with_causes(error));
        let (unreachable, untrusted) = match error {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => (true, true),
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => (true, false),
            ureq::Error::Io(error) => match error.kind() {
                // So it comes from the handshake.
                ErrorKind::InvalidData => (true, true),
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    (true, false)
                }
                _ => (false, false),
            },
            _ => (false, false),
        };
        if unreachable {
            return Trouble::Unreachable { what, untrusted };
        }
        Trouble::Passing {
            status: None,
            what,
            retry_after: None,
        }
    }

    /// A server may send back what it was sent.
    fn without_token(&self, text: &str) -> String {
        match &self.token {
            Some(token) => text.replace(token.as_str(), "***"),
            None => text.to_owned(),
        }
    }
}

/// Retry-After: seconds, or a date, which is counted from the server's own where it says it. "At once" leaves it to us.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
    let value = text("retry-after")?;
    let asked = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().map_or(LONGEST_REST, Duration::from_secs)
    } else {
        let then = httpdate::parse_http_date(&value).ok()?;
        let now = text("date").and_then(|date| httpdate::parse_http_date(&date).ok());
        then.duration_since(now.unwrap_or_else(SystemTime::now))
            .unwrap_or_default()
    };
    Some(asked.min(LONGEST_REST)).filter(|asked| !asked.is_zero())
}

/// The failure that ends a call because of a server.
pub fn fatal(server: &Server, trouble: &Trouble, variables: &str) -> Failure {
    let message = format!("{}: {}", server.base(), trouble.text());
    let failure = |cause| Failure::new(cause, message);
    match trouble {
        Trouble::Refused(_) => failure(Cause::Validation).hint(format!("Look at {variables}. Nothing was lost.")),
        Trouble::Unreachable { untrusted: true, .. } => failure(Cause::SourceUnreachable)
            .hint("--ca-file (MEDIA_ASSETS_CA_FILE) names a PEM file with the certificate of the authority to trust."),
        _ => {
            let when = match trouble.retry_after().filter(|asked| *asked > LONGEST_WAIT) {
                Some(asked) => format!("Call again in {} seconds, as the server asks", asked.as_secs()),
                None => format!("Look at {variables}, and call again"),
            };
            failure(Cause::SourceUnreachable).hint(format!("{when}: nothing was lost."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().expect("a header"));
            if let Some(date) = date {
                headers.insert("date", date.parse().expect("a header"));
            }
            retry_after(&headers).map(|asked| asked.as_secs())
        };
        let now = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        for (value, expected) in [
            ("7", Some(7)),
            (" 0 ", None),
            ("Wed, 21 Oct 2015 07:30:00 GMT", Some(120)),
            ("Wednesday, 21-Oct-15 07:28:05 GMT", Some(5)),
            ("Wed Oct 21 07:29:00 2015", Some(60)),
            // it has passed
            ("Wed, 21 Oct 2015 07:00:00 GMT", None),
            ("99999999999999999999999", Some(86_400)),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(asked(value, now), expected, "{value}");
        }
        assert_eq!(asked("Wed, 21 Oct 2015 07:30:00 GMT", None), None);
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(asked(&soon, None).is_some_and(|asked| (58..=60).contains(&asked)));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn addresses_that_are_refused() {
        for base in [
            "",
            "ftp://x",
            "https://",
            "http://u:p@h",
            "http://h?x=1",
            "http://h/a b",
        ] {
            assert!(
                Server::new("X", base, None, Duration::from_secs(1), None).is_err(),
                "{base}"
            );
        }
        let server = Server::new("X", "http://h:1/path//", None, Duration::from_secs(1), None).expect("an address");
        assert_eq!(server.base(), "http://h:1/path");
    }
}
