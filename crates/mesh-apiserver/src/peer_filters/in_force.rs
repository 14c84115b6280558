//! The filters as the store holds them, each with the revision since when it counts. STABLE FORMAT.
//!
//! | value of `isthmus/v1/hub/filters/<peer>` | meaning |
//! |---|---|
//! | `{"rules":1,"filter":{…}}` | the peer is filtered |
//! | `{"rules":1}` | the peer is shown everything |
//! | `{"rules":1,"inherits":true}` | the peer had a filter of its own, and now that of `*` counts |
//!
//! The peer `*` is everybody who has no key. A key that would no longer be needed stays until its revision is compacted:
//! until then it alone says since when something else counts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kvstore::publisher::{Outcome, PublishError};
use kvstore::{KeyRange, Publisher, Snapshot, Write};
use serde::{Deserialize, Serialize};
use topology::{ClusterName, ExportFilter};

use super::PeerFilters;

/// A reader that filters apply to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The key of its own filter; a peer whose name nothing proves has none.
    key: Option<Bytes>,
}

/// What applies to a peer in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce<'a> {
    /// The value that says what it is shown; `None` is everything.
    pub value: Option<&'a Bytes>,
    /// The revision since when that is so. Nothing that the peer read before it continues after it.
    pub since: u64,
}

/// What the store's filters are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is said.
    pub filters: PeerFilters,
    /// Peers of whose filter it is only known that there is one: the one in the store stays, and if there is none, they
    /// are shown nothing.
    pub held: BTreeSet<ClusterName>,
    /// Whether other peers' filters in the store stay, since it is not known who else has one.
    pub keeps_peers: bool,
    /// Whether the default in the store stays if none is said.
    pub keeps_default: bool,
}

impl From<&PeerFilters> for Wanted {
    fn from(filters: &PeerFilters) -> Self {
        Self { filters: filters.clone(), ..Self::default() }
    }
}

/// Holds a value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// How records are judged: a filter that comes to mean something else is another filter.
    rules: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<ExportFilter>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    inherits: bool,
}

impl Peer {
    /// The peer of this name.
    pub fn named(name: &ClusterName) -> Self {
        Self { key: Some(key(name)) }
    }

    /// A peer whose name nothing proves: it gets what everybody gets.
    pub fn unnamed() -> Self {
        Self { key: None }
    }

    /// What applies to it in a snapshot. O(log keys).
    pub fn in_force<'a>(&self, snapshot: &'a Snapshot) -> InForce<'a> {
        let own = self.key.as_ref().and_then(|key| snapshot.get(key));
        let since_own = own.map_or(0, |own| own.mod_revision);
        let decides = own.filter(|own| own.value != INHERITS).or_else(|| snapshot.get(EVERYBODY.as_bytes()));
        match decides {
            Some(entry) => {
                let value = Some(&entry.value).filter(|value| *value != EVERYTHING);
                InForce { value, since: entry.mod_revision.max(since_own) }
            }
            None => InForce { value: None, since: since_own },
        }
    }
}

/// Brings the store's filters to what is wanted, at one revision unless they are very many. The publisher owns [`FILTERS`].
///
/// What is as it was keeps its revision, so a restart disturbs nobody. Fails if the store does.
pub async fn publish(publisher: &Publisher, wanted: &Wanted) -> Result<Outcome, PublishError> {
    let store = publisher.store();
    publisher.apply(changes(&store.snapshot(), wanted, store.is_mirror())).await
}

/// As [`publish`], to a store of this process.
#[cfg(test)]
pub fn publish_now(store: &kvstore::Store, wanted: &PeerFilters) -> u64 {
    use futures_util::FutureExt;
    let publisher = Publisher::new(store.clone(), [FILTERS]);
    let published = publish(&publisher, &wanted.into())
        .now_or_never()
        .expect("a store of this process waits for nothing");
    published.expect("published").revision
}

/// The filter that a value holds; `None` if nobody can say what it means.
pub fn filter(value: &[u8]) -> Option<ExportFilter> {
    let stored: Stored = serde_json::from_slice(value).ok()?;
    (stored.rules == RULES && !stored.inherits).then(|| stored.filter.unwrap_or_default())
}

/// Other replicas may serve from before the compaction of a mirror, so none of them takes away what is needed no longer.
fn changes(snapshot: &Snapshot, wanted: &Wanted, is_mirror: bool) -> Vec<Write> {
    let own = wanted.filters.peers.iter().map(|(name, filter)| (key(name), value(filter)));
    let held = wanted.held.iter().map(key).map(|key| {
        let stored = snapshot.get(&key).map(|entry| &entry.value);
        let stored = stored.filter(|value| filter(value).is_some()).cloned();
        (key, stored.unwrap_or_else(|| value(&nothing())))
    });
    let mut desired: BTreeMap<Bytes, Bytes> = held.chain(own).collect();
    if let Some(filter) = &wanted.filters.default {
        desired.insert(Bytes::from_static(EVERYBODY.as_bytes()), value(filter));
    }
    let mut changes = Vec::new();
    for entry in snapshot.range(&KeyRange::prefix(FILTERS)) {
        let stays = if entry.key == EVERYBODY { wanted.keeps_default } else { wanted.keeps_peers };
        if stays || desired.contains_key(&entry.key) {
            continue;
        }
        let nothing = if entry.key == EVERYBODY { EVERYTHING } else { INHERITS };
        if entry.value != nothing {
            let value = Bytes::from_static(nothing.as_bytes());
            changes.push(Write::Put { key: entry.key.clone(), value });
        } else if entry.mod_revision < snapshot.compacted() && !is_mirror {
            changes.push(Write::Delete { key: entry.key.clone() });
        }
    }
    let differs = |(key, value): &(Bytes, Bytes)| snapshot.get(key).is_none_or(|entry| entry.value != *value);
    changes.extend(desired.into_iter().filter(differs).map(|(key, value)| Write::Put { key, value }));
    changes
}

/// The filter that hides all that filters can hide.
pub fn nothing() -> ExportFilter {
    let filter = serde_json::from_str(r#"{"namespaces":{"exclude":["*"]},"services":{"exclude":["*/*"]}}"#);
    filter.expect("the language of filters")
}

fn key(name: &ClusterName) -> Bytes {
    format!("{FILTERS}{name}").into()
}

fn value(filter: &ExportFilter) -> Bytes {
    let filter = Some(filter.clone()).filter(|filter| !filter.is_empty());
    let stored = Stored { rules: RULES, filter, inherits: false };
    serde_json::to_vec(&stored).expect("text keys and no failing members").into()
}

/// Below it, the filter of each peer.
pub const FILTERS: &str = "isthmus/v1/hub/filters/";
/// The filter of everybody who has none; no cluster has this name.
const EVERYBODY: &str = "isthmus/v1/hub/filters/*";
/// The version of `docs/export-filters.md`'s table of what is judged by what.
const RULES: u32 = 1;
const EVERYTHING: &str = r#"{"rules":1}"#;
const INHERITS: &str = r#"{"rules":1,"inherits":true}"#;

#[cfg(test)]
mod tests {
    use kvstore::{Store, StoreOptions};

    use super::*;

    const SHOP: &str = "{namespaces: {include: [shop]}}";
    const BANK: &str = "{namespaces: {include: [bank]}}";

    struct World(Store);

    impl World {
        fn new() -> Self {
            Self(Store::in_memory(StoreOptions::default()))
        }

        /// Publishes a file and returns the revision.
        fn publish(&self, text: &str) -> u64 {
            let filters = PeerFilters::parse(text).expect("a file");
            publish_now(&self.0, &filters)
        }

        #[track_caller]
        fn check(&self, peer: &str, namespaces: Option<&str>, since: u64) {
            let peer = match peer {
                "" => Peer::unnamed(),
                name => Peer::named(&name.parse().expect("a name")),
            };
            let snapshot = self.0.snapshot();
            let found = peer.in_force(&snapshot);
            let text = found.value.map(|value| String::from_utf8_lossy(value).into_owned());
            let expected = namespaces
                .map(|name| format!(r#"{{"rules":1,"filter":{{"namespaces":{{"include":["{name}"]}}}}}}"#));
            assert_eq!((text, found.since), (expected, since), "{peer:?}");
        }
    }

    #[test]
    fn constants_are_what_would_be_written() {
        assert_eq!(value(&ExportFilter::default()), EVERYTHING);
        let inherits = Stored { rules: RULES, filter: None, inherits: true };
        assert_eq!(serde_json::to_string(&inherits).expect("JSON"), INHERITS);
        assert_eq!(filter(EVERYTHING.as_bytes()), Some(ExportFilter::default()));
        for nonsense in [INHERITS, r#"{"rules":2}"#, "{}", "", r#"{"rules":1,"filter":{"x":1}}"#] {
            assert_eq!(filter(nonsense.as_bytes()), None, "{nonsense}");
        }
    }

    #[test]
    fn without_filters_nothing_is_written() {
        let world = World::new();
        assert_eq!(world.publish("peers: {}"), 1);
        world.check("tokyo", None, 0);
    }

    #[test]
    fn a_filter_counts_from_its_revision_and_the_same_one_again_changes_nothing() {
        let world = World::new();
        let file = format!("peers: {{tokyo: {SHOP}}}");
        assert_eq!(world.publish(&file), 2);
        assert_eq!(world.publish(&file), 2);
        world.check("tokyo", Some("shop"), 2);
        world.check("lima", None, 0);
        world.check("", None, 0);
        assert_eq!(world.publish(&format!("peers: {{tokyo: {BANK}}}")), 3);
        world.check("tokyo", Some("bank"), 3);
    }

    #[test]
    fn to_be_named_no_longer_is_a_change_and_the_default_counts() {
        let world = World::new();
        world.publish(&format!("{{peers: {{tokyo: {SHOP}, lima: {{}}}}, default: {BANK}}}"));
        world.check("lima", None, 2);
        world.check("oslo", Some("bank"), 2);
        world.check("", Some("bank"), 2);
        assert_eq!(world.publish(&format!("default: {BANK}")), 3);
        world.check("tokyo", Some("bank"), 3);
        world.check("oslo", Some("bank"), 2);
        assert_eq!(world.publish(&format!("default: {SHOP}")), 4);
        world.check("tokyo", Some("shop"), 4);
        assert_eq!(world.publish("peers: {}"), 5);
        world.check("tokyo", None, 5);
        world.check("", None, 5);
    }

    #[test]
    fn what_is_not_known_stays_and_nothing_is_shown_by_mistake() {
        let world = World::new();
        world.publish(&format!("{{peers: {{tokyo: {SHOP}, lima: {SHOP}}}, default: {BANK}}}"));
        let publish = |wanted: &Wanted| {
            use futures_util::FutureExt;
            let publisher = Publisher::new(world.0.clone(), [FILTERS]);
            publish(&publisher, wanted).now_or_never().expect("at once").expect("published").revision
        };
        assert_eq!(publish(&Wanted { keeps_peers: true, keeps_default: true, ..Wanted::default() }), 2);
        assert_eq!(publish(&Wanted { keeps_peers: true, ..Wanted::default() }), 3);
        world.check("tokyo", Some("shop"), 2);
        world.check("", None, 3);
        let names = ["tokyo", "oslo"].map(|name| name.parse().expect("a name"));
        assert_eq!(publish(&Wanted { held: names.into(), ..Wanted::default() }), 4);
        world.check("tokyo", Some("shop"), 2);
        world.check("lima", None, 4);
        let snapshot = world.0.snapshot();
        let oslo = Peer::named(&"oslo".parse().expect("a name"))
            .in_force(&snapshot)
            .value
            .and_then(|value| filter(value));
        assert_eq!(oslo, Some(nothing()));
    }

    #[test]
    fn what_nobody_needs_goes_with_the_compaction() {
        let world = World::new();
        world.publish(&format!("{{peers: {{tokyo: {SHOP}}}, default: {BANK}}}"));
        assert_eq!(world.publish("peers: {}"), 3);
        world.0.put("k", "v").expect("put");
        world.0.compact(3).expect("compacted");
        assert_eq!(world.publish("peers: {}"), 4, "a watch from revision 3 is still possible");
        world.check("tokyo", None, 3);
        world.0.compact(4).expect("compacted");
        assert_eq!(world.publish("peers: {}"), 5);
        world.check("tokyo", None, 0);
        assert_eq!(world.0.snapshot().range(&KeyRange::prefix(FILTERS)).count(), 0);
    }
}
