//! How often is written, and when again after a failure.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Waits that double.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// The next wait, at most `longest`; the first is a second.
    pub fn next(&mut self, longest: Duration) -> Duration {
        let wait = SHORTEST * 2_u32.saturating_pow(self.0);
        self.0 = (self.0 + 1).min(20);
        wait.min(longest)
    }
}

/// Holds writes to a rate that an API server does not notice.
#[derive(Debug)]
pub struct Pace {
    left: f64,
    at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { left: WRITE_BURST, at: Instant::now() }
    }
}

impl Pace {
    /// Waits until one more write may be made. May be dropped: the write then counts as made.
    pub async fn wait(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * WRITE_RATE;
        self.left = (self.left + earned).min(WRITE_BURST) - 1.0;
        self.at = now;
        sleep(Duration::from_secs_f64((-self.left).max(0.0) / WRITE_RATE)).await;
    }
}

/// Writes at once, and a second after that.
const WRITE_BURST: f64 = 50.0;
const WRITE_RATE: f64 = 20.0;
/// The first wait after a failure.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_come_at_a_bounded_rate() {
        let mut pace = Pace::default();
        let begin = Instant::now();
        for _ in 0..90 {
            pace.wait().await;
        }
        let took = begin.elapsed().as_secs_f64();
        assert!((1.9..2.2).contains(&took), "50 at once, 40 more at 20 a second: {took} s");
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..12).map(|_| backoff.next(Duration::from_secs(300)).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }
}
