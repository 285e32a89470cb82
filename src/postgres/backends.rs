//! The server's backends, this one among them: who is alive, settings that were reloaded, waiting.

use std::ffi::CStr;

use pgrx::pg_sys;

/// A backend of this server: its process id, and when it started in microseconds since 2000. The two together are used
/// once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub pid: i32,
    pub start: i64,
}

impl Backend {
    /// The one that this code runs in.
    pub fn own() -> Self {
        // SAFETY: reads two variables of the backend.
        unsafe {
            Backend {
                pid: pg_sys::MyProcPid,
                start: pg_sys::MyStartTimestamp,
            }
        }
    }

    /// Whether the server has it, asked anew.
    pub fn is_alive(self) -> bool {
        // SAFETY: the snapshot is the backend's own copy; forgetting it makes the next call take a new one. Entries are
        // asked by numbers from 1 to the count, and are valid until the snapshot is forgotten.
        unsafe {
            #[cfg(feature = "pg13")]
            pg_sys::pgstat_clear_snapshot();
            #[cfg(not(feature = "pg13"))]
            pg_sys::pgstat_clear_backend_activity_snapshot();
            (1..=pg_sys::pgstat_fetch_stat_numbackends()).any(|number| {
                #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
                let entry = pg_sys::pgstat_fetch_stat_local_beentry(number);
                #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
                let entry = pg_sys::pgstat_get_local_beentry_by_index(number);
                !entry.is_null()
                    && (*entry).backendStatus.st_procpid == self.pid
                    && (*entry).backendStatus.st_proc_start_timestamp == self.start
            })
        }
    }
}

/// The name that the session gave itself.
pub fn application_name() -> String {
    // SAFETY: a NUL-terminated string, or NULL, that lives as long as nobody sets it.
    unsafe {
        let name = pg_sys::application_name;
        if name.is_null() {
            String::new()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// The time, in microseconds since 2000.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Takes over settings that were reloaded since the statement began, as a vacuum worker does between its pieces of work.
pub fn reload_settings() {
    // SAFETY: the flag is set by the signal handler; reading the files is what the main loop would do.
    unsafe {
        if std::ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) != 0 {
            std::ptr::write_volatile(&raw mut pg_sys::ConfigReloadPending, 0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Sleeps up to `milliseconds`, or until something happens that the backend has to look at; lets a cancel through.
pub fn sleep(milliseconds: i64) {
    // SAFETY: waits on the backend's own latch, as pg_sleep does.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            milliseconds as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
