//! Progress lines: the first and the last batch, and at most one a second between.

use std::time::{Duration, Instant};

use crate::settings;

pub struct Progress {
    job: &'static str,
    rows: &'static str,
    /// About how many rows there are; `None` when nobody knows.
    total: Option<i64>,
    started: Instant,
    /// What was done before this session began.
    before: i64,
    last: Option<Instant>,
    said: i64,
}

impl Progress {
    pub fn start(job: &'static str, rows: &'static str, total: Option<i64>) -> Self {
        Progress {
            job,
            rows,
            total,
            started: Instant::now(),
            before: 0,
            last: None,
            said: -1,
        }
    }

    /// Of a run of which `before` rows are done already.
    pub fn resume(job: &'static str, rows: &'static str, total: Option<i64>, before: i64) -> Self {
        Progress {
            before,
            ..Progress::start(job, rows, total)
        }
    }

    /// A batch is done and more may follow.
    pub fn after_batch(&mut self, done: i64) {
        if self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.say(done, false);
        }
    }

    /// The run is over.
    pub fn finish(&mut self, done: i64) {
        if self.said != done {
            self.say(done, true);
        }
    }

    fn say(&mut self, done: i64, finished: bool) {
        if !settings::progress() {
            return;
        }
        self.last = Some(Instant::now());
        self.said = done;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = (done - self.before) as f64 / seconds;
        let rest = match self.total.filter(|total| !finished && *total > done && rate > 0.0) {
            Some(total) => format!(", {} left", clock((total - done) as f64 / rate)),
            None => String::new(),
        };
        let of = match self.total.filter(|_| !finished) {
            Some(total) => format!(" of about {}", total.max(done)),
            None => String::new(),
        };
        crate::postgres::message::info!("{}: {} {}{} done, {:.0}/s{}", self.job, done, self.rows, of, rate, rest);
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as i64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
