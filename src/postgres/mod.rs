//! Everything that touches PostgreSQL's memory or C API. The only place with `unsafe`; each block says why it is sound.
#![allow(unsafe_code)]

pub mod arrays;
pub mod backend;
pub mod backends;
pub mod cursor;
pub mod invalidation;
pub mod jsonb;
pub mod jsonb_build;
pub mod memory;
pub mod message;
pub mod patch;
pub mod record;
pub mod row_set;
pub mod settings_level;
pub mod spi;
pub mod subtransaction;
pub mod time;
pub mod transaction;
pub mod transaction_end;
pub mod transitions;
pub mod trigger;
pub mod user;
pub mod view;
pub mod write_flag;
