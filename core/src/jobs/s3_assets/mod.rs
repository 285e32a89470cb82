//! S3 asset tracking: the asset structs and references that a scene and a session get, their status and their sums.
//!
//! Two phases: scenes first ([`decide_scene`]), then sessions ([`decide_session`]), which count what their scenes have
//! after the run ([`Sums`]). A value that is present is never changed, but what is derived of a session is corrected.

mod counters;
mod scene;
mod session;
mod structs;

pub use counters::{Counters, Kind, Outcome, Reason};
pub use scene::{decide_scene, Scene, SceneDecision, SceneWrites};
pub use session::{decide_session, Session, SessionDecision, SessionWrites, Sums};
pub use structs::{AssetType, EntityType, Reference};

use crate::json::Json;

/// A jsonb column is missing when it is SQL NULL (`None`) or JSON null.
fn present<'a, J: Json<'a>>(column: Option<J>) -> Option<J> {
    column.filter(|value| value.kind() != crate::json::Kind::Null)
}

/// A text column says something when it is neither NULL nor blank.
fn given(column: Option<&str>) -> Option<&str> {
    column.filter(|text| !crate::identity::trim(text).is_empty())
}

/// The columns `assets_status` and `assets_error_message` as a row has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status<'a> {
    /// `status` of the row.
    pub status: Option<&'a str>,
    pub error_message: Option<&'a str>,
    pub assets_status: Option<&'a str>,
    pub assets_error_message: Option<&'a str>,
}

impl<'a> Status<'a> {
    fn is_error(&self) -> bool {
        self.status == Some("error")
    }

    /// The message to write beside the status `assets_status`, where it is missing.
    fn message(&self, assets_status: &str) -> Option<&'a str> {
        let wanted = assets_status == "error" && self.is_error() && self.assets_error_message.is_none();
        given(self.error_message).filter(|_| wanted)
    }
}
