//! What is said of clients again and again, said once: a hostile client in a loop must not fill the log.
//!
//! The first time a thing is said at once. What repeats it within [`WINDOW`] is counted, and the count is said when
//! the window ends. However a client varies what it does, one address is given [`MOST_OF_ADDRESS`] lines a window.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::handshakes::subnet;

/// What was said lately. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    said: Arc<Mutex<HashMap<Notice, Repeats>>>,
}

/// Things that were not said singly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// From where: an IPv4 address, or the first of an IPv6 /64.
    pub from: IpAddr,
    /// What kind of thing.
    pub kind: &'static str,
    /// What it was the first time; empty if it was many different things.
    pub what: String,
    /// How many times more.
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Notice {
    /// Nobody in particular, once there are [`MOST`].
    from: Option<IpAddr>,
    kind: &'static str,
    what: String,
}

#[derive(Debug)]
struct Repeats {
    since: Instant,
    count: u64,
}

impl Notices {
    /// True if this is to be said now; if not, it is counted.
    pub fn say(&self, from: SocketAddr, kind: &'static str, text: &str) -> bool {
        let from = subnet(from.ip());
        let mut said = self.said();
        let exact = Notice { from: Some(from), kind, what: gist(text) };
        let of_address = || said.keys().filter(|notice| notice.from == Some(from)).count();
        let notice = if said.contains_key(&exact) {
            exact
        } else if said.len() >= MOST {
            Notice { from: None, kind, what: String::new() }
        } else if of_address() >= MOST_OF_ADDRESS {
            Notice { what: String::new(), ..exact }
        } else {
            exact
        };
        let single = !notice.what.is_empty();
        if let Some(repeats) = said.get_mut(&notice) {
            repeats.count += 1;
            return false;
        }
        said.insert(notice, Repeats { since: Instant::now(), count: u64::from(!single) });
        single
    }

    /// What repeated itself in windows that have ended. To be asked every few seconds.
    pub fn repeated(&self) -> Vec<Repeated> {
        let now = Instant::now();
        let mut repeated = Vec::new();
        self.said().retain(|notice, repeats| {
            if now.duration_since(repeats.since) < WINDOW {
                return true;
            }
            let count = std::mem::take(&mut repeats.count);
            repeats.since = now;
            if count > 0 {
                let from = notice.from.unwrap_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
                repeated.push(Repeated { from, kind: notice.kind, what: notice.what.clone(), count });
            }
            // What goes on is not new when it comes again.
            count > 0
        });
        repeated
    }

    fn said(&self) -> MutexGuard<'_, HashMap<Notice, Repeats>> {
        // Each change is whole, so a panic elsewhere leaves nothing half done.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text without what differs each time: serial numbers and the present moment.
pub(super) fn gist(text: &str) -> String {
    let mut gist = text;
    if let Some((before, _)) = gist.split_once(", now ") {
        gist = before;
    }
    match gist.split_once(", serial ") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{before}{rest}")
        }
        None => gist.to_owned(),
    }
}

/// How long a thing is said once.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How often to ask what repeated itself.
pub const LOOK: Duration = Duration::from_secs(5);
/// Different things of one address in a window.
pub const MOST_OF_ADDRESS: usize = 32;
/// Different things in a window.
pub const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        format!("{text}:7").parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn what_repeats_is_counted_and_said_when_its_window_ends() {
        let notices = Notices::default();
        assert!(notices.say(at("192.0.2.1"), "tls", "bad"));
        for _ in 0..1000 {
            assert!(!notices.say(at("192.0.2.1"), "tls", "bad"));
        }
        assert!(notices.say(at("192.0.2.1"), "timeout", "bad") && notices.say(at("192.0.2.2"), "tls", "bad"));
        assert_eq!(notices.repeated(), []);
        tokio::time::advance(WINDOW).await;
        let from = IpAddr::from([192, 0, 2, 1]);
        let expected = Repeated { from, kind: "tls", what: "bad".to_owned(), count: 1000 };
        assert_eq!(notices.repeated(), std::slice::from_ref(&expected));
        // It goes on: still not said singly.
        assert!(!notices.say(at("192.0.2.1"), "tls", "bad"));
        tokio::time::advance(WINDOW).await;
        assert_eq!(notices.repeated(), [Repeated { count: 1, ..expected }]);
        tokio::time::advance(WINDOW).await;
        assert_eq!(notices.repeated(), []);
        assert!(notices.said().is_empty(), "nothing is kept of what has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_say_ever_new_things() {
        let notices = Notices::default();
        let lines = (0..5000).filter(|n| notices.say(at("[2001:db8::1]"), "tls", &format!("{n}"))).count();
        assert_eq!(lines, MOST_OF_ADDRESS);
        assert!(notices.say(at("192.0.2.2"), "tls", "another's"));
        tokio::time::advance(WINDOW).await;
        let repeated = notices.repeated();
        let [Repeated { kind: "tls", what, count, .. }] = &repeated[..] else { panic!("{repeated:?}") };
        assert_eq!((what.as_str(), *count), ("", 5000 - MOST_OF_ADDRESS as u64));
        let many = |n: u32| SocketAddr::new(IpAddr::V4((0x0a00_0000 + n).into()), 1);
        let lines = (0..5000).filter(|n| notices.say(many(*n), "tls", "x")).count();
        assert!(lines <= MOST && notices.said().len() <= MOST + 1, "{lines}");
    }

    #[test]
    fn a_gist_has_no_serial_and_no_clock() {
        let text = "certificate CN=a issued by CN=b, serial 0fa7: common name names paris";
        assert_eq!(gist(text), "certificate CN=a issued by CN=b: common name names paris");
        assert_eq!(gist("x, serial 12ab: it ended at 3, now 4"), "x: it ended at 3");
        assert_eq!(gist("no client certificate"), "no client certificate");
    }
}
