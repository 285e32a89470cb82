//! How fast a run goes: rests, the size of its batches, standbys that are behind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::error::{may_not_see_replication, Result};
use crate::postgres::spi::{Connection, Mode};
use crate::settings;

/// How much larger than the last a batch may be.
const MOST_GROWTH: f64 = 1.2;

/// Orders given to the run while it goes; each one given stands in the place of the session's setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Orders {
    /// In milliseconds, as the next two.
    pub batch_pause: Option<i32>,
    pub target_batch_time: Option<i32>,
    pub max_replica_lag: Option<i32>,
    pub batch: Option<i32>,
}

impl Orders {
    pub fn batch_pause(&self) -> i32 {
        self.batch_pause.unwrap_or_else(settings::batch_pause)
    }

    fn target_batch_time(&self) -> i32 {
        self.target_batch_time.unwrap_or_else(settings::target_batch_time)
    }

    pub fn max_replica_lag(&self) -> i32 {
        self.max_replica_lag.unwrap_or_else(settings::max_replica_lag)
    }

    /// The size of the next batch, after one of `size` rows that took `time`. Without a time to aim at it comes back to
    /// `wanted`, from which a lock that was waited for has taken it down.
    pub fn next_size(&self, size: i32, wanted: i32, time: Duration) -> i32 {
        let target = self.target_batch_time();
        if target == 0 {
            let grown = (f64::from(size) * MOST_GROWTH).ceil() as i32;
            return if size < wanted { grown.min(wanted) } else { size };
        }
        let factor = (f64::from(target) / 1000.0 / time.as_secs_f64().max(0.000_1)).clamp(0.5, MOST_GROWTH);
        // Rounded up when it grows, so that a batch of one can.
        let next = if factor > 1.0 {
            (f64::from(size) * factor).ceil()
        } else {
            (f64::from(size) * factor).floor()
        };
        (next as i32).clamp(1, 100_000)
    }
}

/// A wait that is over.
#[derive(Clone, Debug)]
pub struct Wait {
    pub reason: &'static str,
    /// What the reason measured: milliseconds of pause, the standby and its lag.
    pub value: String,
    pub length: Duration,
    /// In microseconds since 2000.
    pub began: i64,
    /// The range that waited, where it was one.
    pub range: Option<i32>,
}

/// Where the WAL stood after some of our commits, by which a standby that has stopped replaying is found out: what it
/// reports of its lag itself is as old as its last replay.
#[derive(Default)]
pub struct Commits {
    points: VecDeque<(Instant, i64)>,
}

impl Commits {
    /// Takes note of the WAL position, at most ten times a second.
    pub fn note(&mut self, connection: &Connection) {
        if self
            .points
            .back()
            .is_some_and(|(time, _)| time.elapsed() < Duration::from_millis(100))
        {
            return;
        }
        let rows = connection.query(
            "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::pg_catalog.int8",
            Mode::Read,
            &[],
        );
        if let Some(position) = rows.get(0, 0) {
            self.points.push_back((Instant::now(), position));
        }
        // An hour of points; a standby that is further behind has the run wait anyway.
        if self.points.len() > 36_000 {
            self.points.pop_front();
        }
    }

    /// How long ago the oldest commit was that a standby at `replayed` does not have; forgets those before.
    fn lag(&mut self, replayed: i64) -> Duration {
        self.points
            .iter()
            .find(|(_, position)| *position > replayed)
            .map_or(Duration::ZERO, |(time, _)| time.elapsed())
    }
}

/// The standby that is furthest behind, when that is more than `allowed` milliseconds: its name and lag in words.
///
/// # Errors
/// 42501 when the role may not see how far standbys are.
pub fn lagging(connection: &Connection, commits: &mut Commits, allowed: i32) -> Result<Option<String>> {
    let rows = connection.query(
        "SELECT pg_catalog.pg_has_role(CURRENT_USER, 'pg_read_all_stats', 'USAGE'), r.application_name,
                pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn)::pg_catalog.int8,
                pg_catalog.pg_wal_lsn_diff(r.replay_lsn, '0/0')::pg_catalog.int8,
                (EXTRACT(epoch FROM r.replay_lag) * 1000)::pg_catalog.int8
         FROM (SELECT) one LEFT JOIN pg_catalog.pg_stat_replication r ON r.state = 'streaming' OR r.state IS NULL",
        Mode::Read,
        &[],
    );
    if rows.get(0, 0) != Some(true) {
        return Err(may_not_see_replication(&crate::postgres::user::current_name()));
    }
    let mut worst: Option<(i64, String)> = None;
    for row in 0..rows.len() {
        let (Some(bytes), Some(replayed)) = (rows.get::<i64>(row, 2), rows.get::<i64>(row, 3)) else {
            continue;
        };
        if bytes <= 0 {
            continue;
        }
        let measured = i64::try_from(commits.lag(replayed).as_millis()).unwrap_or(i64::MAX);
        let reported: Option<i64> = rows.get(row, 4);
        // A lag that nobody knows is none only for a standby that has everything.
        let lag = reported.map_or(measured, |reported| reported.max(measured));
        let unknown = reported.is_none() && measured == 0 && commits.points.is_empty();
        if lag > i64::from(allowed) || unknown {
            let name = rows.text(row, 1).unwrap_or_default();
            let text = format!("{name}: {bytes} bytes, {lag} ms");
            if worst.as_ref().is_none_or(|(most, _)| lag > *most) {
                worst = Some((lag, text));
            }
        }
    }
    Ok(worst.map(|(_, text)| text))
}
