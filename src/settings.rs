//! The settings `media_assets.*`. Each one's description says why it exists.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// Which decisions a run keeps in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, PostgresGucEnum)]
pub enum LogDecisions {
    #[name = c"none"]
    None,
    /// Items that were left out on purpose.
    #[name = c"skipped"]
    Skipped,
    /// Those, and items for which something was written.
    #[name = c"changed"]
    Changed,
    #[name = c"all"]
    All,
}

static PROGRESS: GucSetting<bool> = GucSetting::<bool>::new(true);
static DRY_RUN_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(262_144);
static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(500);
static MAX_FAILURES: GucSetting<i32> = GucSetting::<i32>::new(1000);
static LOG_CHANGES: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOG_DECISIONS: GucSetting<LogDecisions> = GucSetting::<LogDecisions>::new(LogDecisions::Skipped);
static LOG_DECISIONS_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static BATCH_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(0);
static TARGET_BATCH_TIME: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_REPLICA_LAG: GucSetting<i32> = GucSetting::<i32>::new(0);
static DEFAULT_NAMESPACE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"pmoves"));
static BACKFILL_VERSION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static JELLYFIN_PUBLIC_BASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

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
    GucRegistry::define_bool_guc(
        c"media_assets.log_changes",
        c"Keep in the ledger what a run changes, so that it can be undone.",
        c"It costs some bytes of WAL for each item; without it undo_backfill cannot take the run back.",
        &LOG_CHANGES,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"media_assets.log_decisions",
        c"Which decisions on single items a run keeps in the ledger: none, skipped, changed or all.",
        c"The reason of an item that was left out should still be there when somebody asks; all of them would be as many rows as there are items.",
        &LOG_DECISIONS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"media_assets.log_decisions_limit",
        c"How many decisions of one run are kept.",
        c"Counters are exact all the same; this bounds the log of a run over a table in which everything is odd. The triggers keep their newest.",
        &LOG_DECISIONS_LIMIT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"media_assets.batch_pause",
        c"How long a committing run rests after each batch.",
        c"Leaves room for the application between batches. 0 does not rest.",
        &BATCH_PAUSE,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"media_assets.target_batch_time",
        c"How long one batch of a committing run should take.",
        c"The batch size follows it: it grows by at most a fifth and halves when a lock was waited for. 0 leaves the batch as the call gave it.",
        &TARGET_BATCH_TIME,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"media_assets.max_replica_lag",
        c"How far a streaming standby may be behind before a committing run waits for it.",
        c"A backfill writes faster than a standby may replay; readers of the standby would see old rows. 0 does not look.",
        &MAX_REPLICA_LAG,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"media_assets.default_namespace",
        c"The namespace of published content whose row names none.",
        c"Consumers route events by namespace, so that an event never goes without one.",
        &DEFAULT_NAMESPACE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"media_assets.backfill_version",
        c"The version that backfill_jellyfin_metadata marks rows and events with.",
        c"With the row's id it makes the event's id: the same version never queues an event twice, another one sends all of them again.",
        &BACKFILL_VERSION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"media_assets.jellyfin_public_base",
        c"The address under which the world sees Jellyfin.",
        c"Links and thumbnails are built on it; the address that items are fetched from is often an internal one.",
        &JELLYFIN_PUBLIC_BASE,
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

pub fn log_changes() -> bool {
    LOG_CHANGES.get()
}

pub fn log_decisions() -> LogDecisions {
    LOG_DECISIONS.get()
}

pub fn log_decisions_limit() -> i64 {
    i64::from(LOG_DECISIONS_LIMIT.get())
}

/// In milliseconds.
pub fn batch_pause() -> i32 {
    BATCH_PAUSE.get()
}

/// In milliseconds; 0 for none.
pub fn target_batch_time() -> i32 {
    TARGET_BATCH_TIME.get()
}

/// In milliseconds; 0 for none.
pub fn max_replica_lag() -> i32 {
    MAX_REPLICA_LAG.get()
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let text = setting.get()?.to_str().ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

pub fn default_namespace() -> Option<String> {
    text(&DEFAULT_NAMESPACE)
}

pub fn backfill_version() -> Option<String> {
    text(&BACKFILL_VERSION)
}

pub fn jellyfin_public_base() -> Option<String> {
    text(&JELLYFIN_PUBLIC_BASE)
}
