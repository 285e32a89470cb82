//! Trying again where that may help, and when: for all requests of a call together.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::http::Trouble;

/// Nobody waits longer for one server within a call.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// So many requests without any answer, one after the other, are a server that is not there. Less could be the fault of
/// what is asked for: a batch is halved eight times until its bad item stands alone.
const MOST_SILENT: u32 = 10;
/// How often a rest looks whether the call has been stopped.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long to rest before try number `tried + 1`: what the server asks for, else `backoff`, doubled with each try.
pub fn rest(trouble: &Trouble, backoff: Duration, tried: u32) -> Duration {
    trouble.retry_after().unwrap_or_else(|| {
        let own = backoff.saturating_mul(1 << (tried.saturating_sub(1)).min(16));
        own.min(LONGEST_WAIT)
    })
}

/// What the requests of a call have in common.
#[derive(Default)]
pub struct Tries {
    /// The server said to all of us: not before.
    closed_until: Mutex<Option<Instant>>,
    stopped: AtomicBool,
    /// Requests without any answer since the last one that had one.
    silent: AtomicU32,
}

impl Tries {
    /// Ends the rests of all others.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Sleeps, but not longer than the call goes on.
    pub fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    fn closed_for(&self) -> Duration {
        let until = self.closed_until.lock().map_or(None, |until| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn close(&self, time: Duration) {
        if let Ok(mut until) = self.closed_until.lock() {
            let end = Instant::now() + time;
            *until = Some(until.map_or(end, |until| until.max(end)));
        }
    }

    /// Calls `request` until it goes well, cannot go well, or was tried `tries` times.
    ///
    /// # Errors
    /// The last trouble; `Stopped` when another request has ended the call.
    pub fn call<T>(
        &self,
        tries: u32,
        backoff: Duration,
        request: impl Fn() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut tried = 0;
        loop {
            self.sleep(self.closed_for());
            if self.is_stopped() {
                return Err(Trouble::Stopped);
            }
            tried += 1;
            let result = request();
            let silent = matches!(result, Err(Trouble::Passing { status: None, .. }));
            match result {
                Err(trouble) if trouble.may_pass() => {
                    let asked = trouble.retry_after();
                    if let Some(asked) = asked.filter(|asked| *asked <= LONGEST_WAIT) {
                        self.close(asked);
                    }
                    if tried >= tries || asked.is_some_and(|asked| asked > LONGEST_WAIT) {
                        if silent {
                            self.silent.fetch_add(1, Ordering::Relaxed);
                        } else {
                            self.silent.store(0, Ordering::Relaxed);
                        }
                        return Err(trouble);
                    }
                    if asked.is_none() {
                        self.sleep(rest(&trouble, backoff, tried));
                    }
                }
                result => {
                    self.silent.store(0, Ordering::Relaxed);
                    return result;
                }
            }
        }
    }

    /// Whether nothing else can go well in this call either.
    pub fn is_over(&self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Refused(_) | Trouble::Unreachable { .. } | Trouble::Stopped => true,
            Trouble::Passing { .. } => {
                trouble.retry_after().is_some_and(|asked| asked > LONGEST_WAIT)
                    || self.silent.load(Ordering::Relaxed) >= MOST_SILENT
            }
            Trouble::Lasting { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn passing(status: Option<u16>, retry_after: Option<u64>) -> Trouble {
        Trouble::Passing {
            status,
            what: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn rests_double_and_the_server_knows_better() {
        let second = Duration::from_secs(1);
        let rests: Vec<u64> = (1..5)
            .map(|tried| rest(&passing(None, None), second, tried).as_secs())
            .collect();
        assert_eq!(rests, [1, 2, 4, 8]);
        assert_eq!(rest(&passing(Some(429), Some(7)), second, 3).as_secs(), 7);
        assert_eq!(rest(&passing(Some(503), Some(3600)), second, 3).as_secs(), 3600);
        assert_eq!(rest(&passing(None, None), second, 1000), LONGEST_WAIT);
    }

    #[test]
    fn a_server_that_is_not_there_is_told_from_a_bad_item() {
        let tries = Tries::default();
        let silent = || tries.call::<()>(1, Duration::ZERO, || Err(passing(None, None)));
        for _ in 1..MOST_SILENT {
            assert!(silent().is_err_and(|trouble| !tries.is_over(&trouble)));
        }
        assert!(silent().is_err_and(|trouble| tries.is_over(&trouble)));
        assert_eq!(tries.call(1, Duration::ZERO, || Ok(())), Ok(()));
        assert!(silent().is_err_and(|trouble| !tries.is_over(&trouble)));
    }

    #[test]
    fn who_waits_longer_than_a_call_goes_on_does_not_try_again() {
        let (tries, calls) = (Tries::default(), Cell::new(0));
        let result = tries.call::<()>(5, Duration::ZERO, || {
            calls.set(calls.get() + 1);
            Err(passing(Some(429), Some(3600)))
        });
        assert_eq!(calls.get(), 1);
        assert!(result.is_err_and(|trouble| tries.is_over(&trouble)));
        tries.stop();
        assert_eq!(tries.call(5, Duration::ZERO, || Ok(())), Err(Trouble::Stopped));
    }
}
