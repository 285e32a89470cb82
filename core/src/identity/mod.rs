//! Identity: canonical keys, media links, MIME types and kinds.
//!
//! Everything here is a pure function of its arguments and answers `None` (or a reason) for bad data, never an error.
//! The answers stand in unique indexes, so the same input gives the same key for ever: a change of a rule that
//! changes any key is a new [`ASSET_KEY_VERSION`], never an edit.

mod address;
mod canonical_url;
mod content_signature;
mod enricher_checksum;
mod facets;
mod google_drive;
mod key;
mod kind;
mod markup;
mod media_link;
mod mime_type;
mod path;
mod platforms;
mod s3;
mod signature_parameters;
mod text;
mod vimeo;
mod youtube;

pub use address::Address;
pub use canonical_url::canonical_url;
pub use content_signature::content_signature;
pub use enricher_checksum::enricher_checksum;
pub use facets::{FacetValue, Facets};
pub use google_drive::google_drive_file_id;
pub use key::{asset_canonical_key, path_canonical_key, row_canonical_key, ASSET_KEY_VERSION};
pub use kind::infer_asset_kind;
pub use media_link::{parse_media_link, MediaLink};
pub use mime_type::infer_mime_type;
pub use path::{fold_case, normalize_path};
pub use s3::{join_key, s3_object_of_url, S3Object};
pub use text::{percent_decode_once, percent_encode, trim};
pub use youtube::youtube_video_id;
