//! The server's clock, which a test can set wrong.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The time of this server: the machine's, shifted. Its `Date` header and all its time stamps follow it.
#[derive(Debug, Default)]
pub struct Clock {
    skew_secs: AtomicI64,
}

impl Clock {
    /// Sets how far the clock is ahead; negative: behind.
    pub fn set_skew_secs(&self, secs: i64) {
        self.skew_secs.store(secs, Ordering::Relaxed);
    }

    /// How far the clock is ahead, in seconds.
    pub fn skew_secs(&self) -> i64 {
        self.skew_secs.load(Ordering::Relaxed)
    }

    /// As in `creationTimestamp`: RFC 3339 in whole seconds.
    pub fn now_text(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The same, some seconds from now.
    pub fn text_in(&self, secs: i64) -> String {
        let now = self.now();
        let then = now.checked_add(SignedDuration::from_secs(secs)).unwrap_or(now);
        then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// As in the `Date` header (RFC 9110, 5.6.7).
    pub fn now_http(&self) -> String {
        self.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(SignedDuration::from_secs(self.skew_secs())).unwrap_or(now)
    }
}
