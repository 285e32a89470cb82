//! The settings `media_assets.*`. Each one's description says why it exists.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static PROGRESS: GucSetting<bool> = GucSetting::<bool>::new(true);
static DRY_RUN_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(262_144);
static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(500);
static MAX_FAILURES: GucSetting<i32> = GucSetting::<i32>::new(1000);

/// Registers the settings; called once from `_PG_init`.
pub fn register() {
    GucRegistry::define_bool_guc(
        c"media_assets.progress",
        c"Send progress lines as INFO messages.",
        c"A run over millions of rows should say where it is; scripts that parse their output turn it off.",
        &PROGRESS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"media_assets.dry_run_memory",
        c"Memory that a dry run may use to remember the keys it would have created.",
        c"The prediction is exact because keys are remembered; this bounds what that may cost. Above it the dry run stops.",
        &DRY_RUN_MEMORY,
        64,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"media_assets.lock_timeout",
        c"How long a run waits for a row that somebody else has locked.",
        c"It stays below deadlock_timeout, so that the run yields and not the application. 0 leaves lock_timeout as it is.",
        &LOCK_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"media_assets.max_failures",
        c"How many failing rows stop a run.",
        c"One bad row costs only itself, but thousands of the same failure mean that something else is wrong.",
        &MAX_FAILURES,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
}

pub fn progress() -> bool {
    PROGRESS.get()
}

/// In bytes.
pub fn dry_run_memory() -> usize {
    usize::try_from(DRY_RUN_MEMORY.get()).unwrap_or(0) * 1024
}

/// In milliseconds; `None` leaves the session's own `lock_timeout`.
pub fn lock_timeout() -> Option<i32> {
    Some(LOCK_TIMEOUT.get()).filter(|milliseconds| *milliseconds > 0)
}

pub fn max_failures() -> i64 {
    i64::from(MAX_FAILURES.get())
}
