//! The Lease that is held, and its times.

use std::time::Duration;

/// Which Lease, and when its holder has lost it. The names and times are those of Kubernetes' components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The times.
    pub times: Times,
}

/// When a Lease is renewed, and when it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A Lease that was not seen to change for this long is free.
    pub duration: Duration,
    /// A holder that has not renewed it for this long writes nothing more to the API server. Below `duration`: what is
    /// between the two is for requests that are under way, and for clocks that run at different rates.
    pub renew_deadline: Duration,
    /// How often it is renewed, or looked at. Below `renew_deadline`.
    pub retry_period: Duration,
}

/// Times that could not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a Lease of {} s, renewed each {} s and in doubt after {} s: expected the period to be shorter than the deadline, and \
     the deadline shorter than the Lease",
    times.duration.as_secs(), times.retry_period.as_secs(), times.renew_deadline.as_secs()
)]
pub struct InvalidTimes {
    /// As given.
    pub times: Times,
}

impl Times {
    /// These times, whole seconds, if they can work together.
    pub fn new(duration: u16, renew_deadline: u16, retry_period: u16) -> Result<Self, InvalidTimes> {
        let [duration, renew_deadline, retry_period] =
            [duration, renew_deadline, retry_period].map(|secs| Duration::from_secs(secs.into()));
        let times = Self { duration, renew_deadline, retry_period };
        if retry_period.is_zero() || retry_period >= renew_deadline || renew_deadline >= duration {
            return Err(InvalidTimes { times });
        }
        Ok(times)
    }

    /// Time for an answer of the API server: a request that hangs leaves time for another before the deadline.
    pub fn answer(&self) -> Duration {
        self.renew_deadline / 2
    }
}

impl Settings {
    /// `namespace/name`, for people.
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_an_order() {
        assert!(Times::new(15, 10, 2).is_ok());
        for (duration, deadline, period) in [(10, 10, 2), (15, 2, 2), (15, 10, 0), (0, 0, 0), (1, 2, 3)] {
            let error = Times::new(duration, deadline, period).expect_err("they cannot work");
            assert!(error.to_string().contains(&format!("a Lease of {duration} s")), "{error}");
        }
    }
}
