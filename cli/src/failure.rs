//! How the client ends when something fails: its exit code, and what it prints.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{json, Value};

/// What went wrong, as the exit code tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What was asked for is refused, by the client or by the database.
    Validation,
    /// The scope matches no item.
    ScopeNotFound,
    /// The files, the server or the service cannot be reached.
    SourceUnreachable,
    /// It went to its end, and some of what was to be done failed.
    Incomplete,
}

impl Cause {
    fn exit_code(self) -> u8 {
        match self {
            Cause::Validation => 1,
            Cause::ScopeNotFound => 2,
            Cause::SourceUnreachable => 3,
            Cause::Incomplete => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Cause::Validation => "validation",
            Cause::ScopeNotFound => "scope_not_found",
            Cause::SourceUnreachable => "source_unreachable",
            Cause::Incomplete => "incomplete",
        }
    }
}

/// A failure with what a user needs to get on.
#[derive(Debug)]
pub struct Failure {
    pub cause: Cause,
    pub message: String,
    pub sqlstate: Option<String>,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Failure {
            cause,
            message: message.into(),
            sqlstate: None,
            detail: None,
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the database said. `scope_not_found` is the SQLSTATE that the called function gives that meaning.
    pub fn of_database(error: &postgres::Error, scope_not_found: Option<&str>) -> Self {
        let Some(server) = error.as_db_error() else {
            return Failure::new(Cause::SourceUnreachable, with_causes(error));
        };
        let sqlstate = server.code().code();
        let cause = match sqlstate {
            _ if scope_not_found == Some(sqlstate) => Cause::ScopeNotFound,
            // Connections, resources, an operator's intervention, the server's own troubles.
            _ if ["08", "53", "57", "58", "XX"]
                .iter()
                .any(|class| sqlstate.starts_with(class)) =>
            {
                Cause::SourceUnreachable
            }
            _ => Cause::Validation,
        };
        Failure {
            cause,
            message: server.message().to_owned(),
            sqlstate: Some(sqlstate.to_owned()),
            detail: server.detail().map(str::to_owned),
            hint: server.hint().map(str::to_owned),
        }
    }

    /// The failure as JSON: `{"status": "error", "error": {…}}`.
    pub fn to_json(&self) -> Value {
        json!({
            "status": "error",
            "error": {
                "cause": self.cause.name(),
                "message": self.message,
                "sqlstate": self.sqlstate,
                "detail": self.detail,
                "hint": self.hint,
            },
        })
    }

    /// Prints the failure, JSON on standard output, text on standard error, and gives the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if json {
            let _ = writeln!(std::io::stdout(), "{}", self.to_json());
        } else {
            eprintln!("media-assets: {}", self.message);
            if let Some(detail) = &self.detail {
                eprintln!("DETAIL: {detail}");
            }
            if let Some(hint) = &self.hint {
                eprintln!("HINT: {hint}");
            }
        }
        ExitCode::from(self.cause.exit_code())
    }
}

/// An error with all that caused it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What clap says of arguments that it does not take (or was asked for: help and version).
pub fn of_arguments(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help on a closed pipe is nobody's problem.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        return Failure::new(Cause::Validation, message)
            .hint("media-assets --help")
            .report(true);
    }
    let _ = error.print();
    ExitCode::from(Cause::Validation.exit_code())
}
