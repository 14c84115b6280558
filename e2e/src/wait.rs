//! Waiting for a condition: a predicate, a deadline, and what was seen last.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep, timeout};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`. Fails after `deadline` with `why` and the last error: a condition that does not hold
/// yet is an `Err` that says what was seen instead.
pub async fn eventually<T, F, Fut>(why: &str, deadline: Duration, mut ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let end = Instant::now() + deadline;
    let mut last = None;
    loop {
        match timeout(end.saturating_duration_since(Instant::now()), ask()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = Some(seen),
            Err(_) => {
                last = Some(last.unwrap_or_else(|| anyhow!("no answer to the question itself in this time")))
            }
        }
        if Instant::now() + INTERVAL >= end {
            let seen = last.unwrap_or_else(|| anyhow!("nothing"));
            return Err(anyhow!("not within {deadline:?}: {why}; last seen: {seen:#}"));
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::ensure;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_first_ok() {
        let asked = Cell::new(0);
        let asked = &asked;
        let answer = eventually("third time", Duration::from_secs(1), || async move {
            asked.set(asked.get() + 1);
            ensure!(asked.get() == 3, "asked {} times", asked.get());
            Ok("yes")
        });
        assert_eq!(answer.await.expect("holds at the third look"), "yes");
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_says_what_was_seen_last() {
        let waiting = eventually::<(), _, _>("the moon is near", Duration::from_secs(2), || async {
            Err(anyhow!("it is 384400 km away"))
        });
        let error = waiting.await.expect_err("never holds").to_string();
        assert!(error.contains("the moon is near") && error.contains("384400 km"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_hangs_meets_the_deadline_too() {
        let waiting = eventually::<(), _, _>("an answer", Duration::from_secs(2), std::future::pending);
        let error = waiting.await.expect_err("hangs").to_string();
        assert!(error.contains("no answer"), "{error}");
    }
}
