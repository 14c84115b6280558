//! Which objects of identities nobody uses any more. Pure.
//!
//! An object goes in two steps, so that it cannot go while somebody begins to use it, who may be another hub: unused for
//! some time it is marked, and marked for as long it is deleted, if it is still the version that was marked. Whoever uses
//! the number takes the mark away first, which makes another version of it. No clock is compared with another's: what
//! counts is for how long this hub has seen the version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use topology::Identity;

use super::registrar::Want;
use crate::object::MeshIdentity;

/// Looks at objects again and again.
#[derive(Clone, Debug)]
pub struct Collector {
    after: Duration,
    idle: BTreeMap<Identity, Idle>,
}

#[derive(Clone, Debug)]
struct Idle {
    object: Arc<MeshIdentity>,
    since: Instant,
}

impl Collector {
    /// Marks what is unused for so long, and deletes after as long again.
    pub fn new(after: Duration) -> Self {
        Self { after, idle: BTreeMap::new() }
    }

    /// How often to look.
    pub fn interval(&self) -> Duration {
        (self.after / 2).clamp(Duration::from_millis(200), Duration::from_secs(60))
    }

    /// Says what to do about objects that nobody uses, all of them. O(objects).
    pub fn look(
        &mut self,
        idle: impl Iterator<Item = (Identity, Arc<MeshIdentity>)>,
        now: Instant,
    ) -> BTreeMap<Identity, Want> {
        let mut before = std::mem::take(&mut self.idle);
        let mut due = BTreeMap::new();
        for (identity, object) in idle {
            // Another version is another object: somebody did something to it.
            let known = before.remove(&identity).filter(|known| known.object == object);
            let since = known.map_or(now, |known| known.since);
            if now.duration_since(since) >= self.after {
                let want = match object.unused {
                    true => Want::Gone(Arc::clone(&object)),
                    false => Want::Marked(Arc::clone(&object)),
                };
                due.insert(identity, want);
            }
            self.idle.insert(identity, Idle { object, since });
        }
        due
    }

    /// Begins anew: what was seen so far does not count.
    pub fn reset(&mut self) {
        self.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, unused: bool) -> Arc<MeshIdentity> {
        Arc::new(MeshIdentity {
            name: "300".into(),
            labels: Arc::default(),
            unused,
            uid: "u".into(),
            version: version.into(),
            created: None,
        })
    }

    #[test]
    fn an_object_goes_in_two_steps_and_stays_if_it_is_used_between() {
        let after = Duration::from_secs(600);
        let mut collector = Collector::new(after);
        let begin = Instant::now();
        let mut look = |minutes: u64, object: Option<&Arc<MeshIdentity>>| {
            let idle = object.map(|object| (Identity(300), Arc::clone(object)));
            collector.look(idle.into_iter(), begin + Duration::from_secs(minutes * 60)).remove(&Identity(300))
        };
        let fresh = object("1", false);
        assert_eq!(look(0, Some(&fresh)), None);
        assert_eq!(look(9, Some(&fresh)), None);
        assert_eq!(look(10, None), None, "it is used");
        assert_eq!(look(11, Some(&fresh)), None, "counted anew");
        assert_eq!(look(21, Some(&fresh)), Some(Want::Marked(Arc::clone(&fresh))));
        let marked = object("2", true);
        assert_eq!(look(22, Some(&marked)), None, "one look does not delete it");
        assert_eq!(look(31, Some(&marked)), None);
        let again = object("3", true);
        assert_eq!(look(32, Some(&again)), None, "another hub marked it anew");
        assert_eq!(look(42, Some(&again)), Some(Want::Gone(again.clone())));
    }
}
