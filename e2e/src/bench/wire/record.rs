//! What is stored: records of the size and shape of ClusterMesh's `ip` and `services` records, under a prefix that no
//! publisher owns. A value ends with the time at which it was sent, so that a watcher can tell how long it took.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

/// The `ip` records.
pub(super) const IP_PREFIX: &str = "bench/ip/v1/";
/// The `services` records.
pub(super) const SERVICE_PREFIX: &str = "bench/services/v1/";

/// The one clock of a run, for the times in values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub(super) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The key of the `ip` record with this number.
pub(super) fn ip_key(number: u64) -> String {
    format!("{IP_PREFIX}default/{}", address(number))
}

/// An `ip` record of about 250 bytes that was sent at this time.
pub(super) fn ip_value(number: u64, sent: u64) -> String {
    let (ip, node, identity) = (address(number), number / 100 % 200 + 1, 65_536 + number % 500);
    format!(
        r#"{{"IP":"{ip}","Mask":null,"HostIP":"172.20.1.{node}","ID":{identity},"Key":0,"Metadata":"","K8sNamespace":"shop","K8sPodName":"checkout-7c9d8b6f5d-{number:06x}","K8sServiceAccount":"checkout","NamedPorts":[{{"Name":"http","Port":8080}}],"Sent":"{sent:016x}"}}"#
    )
}

/// The key of the service with this number.
pub(super) fn service_key(number: u64) -> String {
    format!("{SERVICE_PREFIX}bench/shop/service-{number}")
}

/// A service with ten backends, about 900 bytes.
pub(super) fn service_value(number: u64) -> String {
    let mut backends = String::new();
    for backend in 0..10 {
        let comma = if backend == 0 { "" } else { "," };
        let ip = address(number * 10 + backend);
        // Writing to a String cannot fail.
        let written =
            write!(backends, r#"{comma}"{ip}":{{"http":{{"Protocol":"TCP","Port":8080}},"zone":"a"}}"#);
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    format!(
        r#"{{"cluster":"bench","clusterID":1,"namespace":"shop","name":"service-{number}","frontends":{{"10.96.{}.{}":{{"http":{{"Protocol":"TCP","Port":80}}}}}},"backends":{{{backends}}},"shared":true,"includeExternal":true}}"#,
        number / 250 % 250,
        number % 250
    )
}

/// When the value at the end of this event was sent.
pub(super) fn sent(event: &[u8]) -> Result<u64> {
    let (digits, end) =
        event.last_chunk::<18>().map(|tail| tail.split_at(16)).context("an event is short")?;
    ensure!(end == b"\"}", "an event does not end with its value: {}", String::from_utf8_lossy(event));
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16).context("the time in a value is no number")?;
        Ok(value << 4 | u64::from(digit))
    })
}

fn address(number: u64) -> String {
    format!("10.{}.{}.{}", number / 62_500 % 250, number / 250 % 250, number % 250)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_tell_when_they_were_sent() {
        for number in [0, 99_999, 499_999] {
            let value = ip_value(number, 0xfeed_0000_1234_5678);
            assert!((240..=275).contains(&value.len()), "{} bytes: {value}", value.len());
            assert_eq!(sent(value.as_bytes()).expect("a time"), 0xfeed_0000_1234_5678);
            serde_json::from_str::<serde_json::Value>(&value).expect("JSON");
        }
        serde_json::from_str::<serde_json::Value>(&service_value(7)).expect("JSON");
        assert!(sent(b"short").is_err());
        assert_ne!(ip_key(1), ip_key(62_501));
    }
}
