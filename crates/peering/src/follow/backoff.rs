//! How long to wait before a hub is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits between attempts: doubling, with a random part so that many clients do not come at once.
pub(super) struct Backoff {
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(50), random: RandomState::new(), count: 0 }
    }
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST_WAIT);
        self.count += 1;
        let percent = u32::try_from(self.random.hash_one(self.count) % 50).unwrap_or(0);
        wait * (75 + percent) / 100
    }
}

/// A hub that comes back is found within this.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ_by_a_random_part() {
        let mut backoff = Backoff::default();
        let mut sound = Duration::from_millis(50);
        for attempt in 0..20 {
            let wait = backoff.next();
            assert!(
                wait >= sound * 75 / 100 && wait < sound * 125 / 100,
                "attempt {attempt}: {wait:?} of {sound:?}"
            );
            sound = (sound * 2).min(LONGEST_WAIT);
        }
    }
}
