//! A private level of settings for the engine's own statements, as foreign-key checks use one.

use std::ffi::CString;

use pgrx::pg_sys;

/// Settings that hold until the value is dropped; an abort of the transaction undoes them by itself.
pub struct SettingsLevel {
    level: i32,
}

impl SettingsLevel {
    /// Sets each (name, value) for as long as the level lives.
    pub fn with<'s>(settings: impl IntoIterator<Item = (&'s str, String)>) -> Self {
        // SAFETY: opens a nesting level that `drop` (or the end of the transaction) closes.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in settings {
            let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
                continue;
            };
            // SAFETY: both strings are NUL-terminated and outlive the call, which copies them.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
        }
        SettingsLevel { level }
    }
}

impl Drop for SettingsLevel {
    fn drop(&mut self) {
        // On an error the (sub)transaction's end has restored, or will restore, the settings.
        if !std::thread::panicking() {
            // SAFETY: `level` is the one opened in `with`, and levels are closed in reverse order by scope.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) };
        }
    }
}
