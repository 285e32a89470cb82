//! One request and what came of it; trying again where that may help.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use crate::failure::{Cause, Failure};

/// Answers above this are refused: 64 MiB.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;
/// Nobody waits longer for one server.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

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
    /// It may go well next time.
    Passing {
        /// `None` when there was no answer at all.
        status: Option<u16>,
        what: String,
        retry_after: Option<Duration>,
    },
    /// It will not.
    Lasting { status: u16, what: String },
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
            Trouble::Passing { what, .. } => what.clone(),
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
    /// `variable` is where `base` came from.
    pub fn new(variable: &str, base: &str, token: Option<String>, timeout: Duration) -> Result<Self, Failure> {
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
        let agent = Agent::config_builder()
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
        let no_answer = |error: ureq::Error| Trouble::Passing {
            status: None,
            what: self.without_token(&error.to_string()),
            retry_after: None,
        };
        let mut response = result.map_err(no_answer)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
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

    /// A server may send back what it was sent.
    fn without_token(&self, text: &str) -> String {
        match &self.token {
            Some(token) => text.replace(token.as_str(), "***"),
            None => text.to_owned(),
        }
    }
}

/// How long to rest before try number `tried + 1`.
pub fn rest(trouble: &Trouble, backoff: Duration, tried: u32) -> Duration {
    let own = backoff.saturating_mul(1 << (tried.saturating_sub(1)).min(16));
    match trouble {
        Trouble::Passing {
            retry_after: Some(asked),
            ..
        } => *asked,
        _ => own,
    }
    .min(LONGEST_WAIT)
}

/// Calls `request` until it goes well, cannot go well, or was tried `tries` times.
pub fn with_tries<T>(tries: u32, backoff: Duration, request: impl Fn() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let mut tried = 0;
    loop {
        tried += 1;
        match request() {
            Err(trouble @ Trouble::Passing { .. }) if tried < tries => {
                std::thread::sleep(rest(&trouble, backoff, tried))
            }
            result => return result,
        }
    }
}

/// The failure that ends a call because of a server.
pub fn fatal(server: &Server, trouble: &Trouble, variables: &str) -> Failure {
    let message = format!("{}: {}", server.base(), trouble.text());
    match trouble {
        Trouble::Refused(_) => {
            Failure::new(Cause::Validation, message).hint(format!("Look at {variables}. Nothing was lost."))
        }
        _ => Failure::new(Cause::SourceUnreachable, message)
            .hint(format!("Look at {variables}, and call again: nothing was lost.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(retry_after: Option<u64>) -> Trouble {
        Trouble::Passing {
            status: Some(429),
            what: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn rests_double_and_the_server_knows_better() {
        let second = Duration::from_secs(1);
        let rests: Vec<u64> = (1..5)
            .map(|tried| rest(&passing(None), second, tried).as_secs())
            .collect();
        assert_eq!(rests, [1, 2, 4, 8]);
        assert_eq!(rest(&passing(Some(7)), second, 3).as_secs(), 7);
        assert_eq!(rest(&passing(Some(u64::MAX)), second, 3), LONGEST_WAIT);
        assert_eq!(rest(&passing(None), second, 1000), LONGEST_WAIT);
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
            assert!(Server::new("X", base, None, Duration::from_secs(1)).is_err(), "{base}");
        }
        let server = Server::new("X", "http://h:1/path//", None, Duration::from_secs(1)).expect("an address");
        assert_eq!(server.base(), "http://h:1/path");
    }
}
