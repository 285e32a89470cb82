//! What a caller gives in the `options` of `run_backfill`, and the ledger keeps of a run.

use std::collections::BTreeMap;

use crate::error::{invalid_argument, Result};

/// Options by name, as texts. Each is taken once; what is left is an error.
#[derive(Clone, Debug, Default)]
pub struct GivenOptions {
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl GivenOptions {
    pub fn new(values: BTreeMap<String, String>) -> Self {
        GivenOptions {
            values,
            known: Vec::new(),
        }
    }

    /// The text of an option.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.values.remove(name)
    }

    /// An option that is a whole number.
    ///
    /// # Errors
    /// 22023 when it is something else.
    pub fn number(&mut self, name: &'static str) -> Result<Option<i64>> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    invalid_argument(
                        format!("option {name} must be a whole number, not {text}"),
                        format!("options => '{{\"{name}\": 1000}}'"),
                    )
                })
            })
            .transpose()
    }

    /// An option that is true or false; false when it is not given.
    ///
    /// # Errors
    /// 22023 when it is something else.
    pub fn flag(&mut self, name: &'static str) -> Result<bool> {
        match self.text(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(invalid_argument(
                format!("option {name} must be true or false, not {other}"),
                format!("options => '{{\"{name}\": true}}'"),
            )),
        }
    }

    /// # Errors
    /// 22023 when an option was given that the job does not know.
    pub fn finish(self, job: &str) -> Result<()> {
        let Some(name) = self.values.keys().next() else {
            return Ok(());
        };
        let known = if self.known.is_empty() {
            format!("Job {job} has no options.")
        } else {
            format!("Job {job} knows: {}.", self.known.join(", "))
        };
        Err(invalid_argument(format!("job {job} has no option {name}"), known))
    }
}
