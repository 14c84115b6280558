//! Stories: keys and values in, map content out. To add one, put a file into `tests/scripts`; no Rust is needed.
//!
//! A story is a list of sections. What a section says adds to what was said before; each `maps` section is compared.
//!
//! ```text
//! -- own paris 1 n1 --            the cluster and node that this agent is of, and what its hub says:
//! KEY VALUE                       a key and its value
//! - KEY                           a key that is gone
//! -- peer tokyo 2 --              what a peer's hub says
//! -- remove tokyo --              the peer is no longer configured
//! -- nodes --                     what probes say: an address, and `reachable` or `suspect`
//! tokyo 172.20.2.1 suspect
//! -- maps --                      what the maps must hold now
//! FRONTEND/PROTOCOL -> BACKEND …  in address order; `(refused)` for none
//! ADDRESS is IDENTITY of cluster ID behind NODE
//! -- refused --                   records that were not taken, as often as said
//! KIND COUNT
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use mesh_agent::desired::desired;
use mesh_agent::maps::{Maps, MemoryMaps};
use mesh_agent::plan::Plan;
use mesh_agent::programmer::Programmer;
use peering::ledger::{Entry, Feed, Ledger};
use tokio::time::Instant;
use topology::cluster::MaxClusters;
use topology::health::{NodeHealth, ProbeHistory};
use topology::record::{Kind, Origin};
use topology::snapshot::{Member, Snapshot};
use topology::{ClusterName, NodeName};

struct Story {
    node: NodeName,
    own: Ledger,
    peers: BTreeMap<ClusterName, Ledger>,
    probes: BTreeMap<ClusterName, BTreeMap<std::net::IpAddr, ProbeHistory>>,
    programmer: Programmer<MemoryMaps>,
}

#[tokio::test]
async fn stories() {
    let mut told = 0;
    let mut failures = String::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"))
        .expect("the stories are there")
    {
        let path = entry.expect("a readable folder").path();
        let text = std::fs::read_to_string(&path).expect("a readable story");
        if let Err(why) = tell(&text) {
            writeln!(failures, "{}: {why}", path.display()).expect("memory");
        }
        told += 1;
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(told >= 5, "only {told} stories were found");
}

fn tell(text: &str) -> Result<(), String> {
    let mut story: Option<Story> = None;
    let mut compared = 0;
    for (title, body) in sections(text) {
        let words: Vec<&str> = title.split_whitespace().collect();
        match (words.as_slice(), &mut story) {
            (["own", cluster, id, node], None) => {
                let own = ledger(cluster, id);
                let programmer = Programmer::recover(MemoryMaps::new(256)).map_err(|e| e.to_string())?;
                let node = node.parse().map_err(|e| format!("{e}"))?;
                let mut new =
                    Story { node, own, peers: BTreeMap::new(), probes: BTreeMap::new(), programmer };
                hear(&mut new.own, &body)?;
                story = Some(new);
            }
            (["own"], Some(story)) => hear(&mut story.own, &body)?,
            (["peer", cluster, id], Some(story)) => {
                let name = cluster.parse().map_err(|e| format!("{e}"))?;
                hear(story.peers.entry(name).or_insert_with(|| ledger(cluster, id)), &body)?;
            }
            (["remove", cluster], Some(story)) => {
                story.peers.remove(&cluster.parse::<ClusterName>().map_err(|e| e.to_string())?);
            }
            (["nodes"], Some(story)) => {
                for line in body {
                    let [cluster, address, verdict] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                        return Err(format!("nodes: {line:?}"));
                    };
                    let mut history = ProbeHistory::default();
                    history.answered();
                    if verdict == "suspect" {
                        history.missed();
                    }
                    let nodes = story.probes.entry(cluster.parse().expect("a name")).or_default();
                    nodes.insert(address.parse().expect("an address"), history);
                }
            }
            (["maps"], Some(story)) => {
                let found = story.maps();
                let expected: Vec<String> = body.iter().map(|line| (*line).to_owned()).collect();
                if found != expected {
                    return Err(format!(
                        "maps hold\n  {}\nexpected\n  {}",
                        found.join("\n  "),
                        expected.join("\n  ")
                    ));
                }
                compared += 1;
            }
            (["refused"], Some(story)) => {
                let all = std::iter::once(&story.own).chain(story.peers.values());
                let counts = all.flat_map(|ledger| &ledger.rejections().count);
                let found: Vec<String> = counts.map(|(kind, count)| format!("{kind} {count}")).collect();
                if found != body {
                    return Err(format!("refused {found:?}, expected {body:?}"));
                }
                compared += 1;
            }
            _ => return Err(format!("no such section here: {title:?}")),
        }
    }
    if compared == 0 { Err("nothing is compared".to_owned()) } else { Ok(()) }
}

impl Story {
    fn maps(&mut self) -> Vec<String> {
        let member = |ledger: &Ledger| Arc::new(ledger.member().clone());
        let peers: BTreeMap<ClusterName, Arc<Member>> =
            self.peers.iter().map(|(name, ledger)| (name.clone(), member(ledger))).collect();
        let snapshot = Snapshot {
            node: self.node.clone(),
            own: member(&self.own),
            services: self.own.local_services().clone(),
            peers,
            health: Arc::new(NodeHealth::judge(&self.probes, 1)),
        };
        let wanted = desired(&snapshot);
        let plan = Plan::between(self.programmer.applied(), &wanted.image);
        let outcome = self.programmer.apply(plan, Instant::now());
        assert_eq!(outcome.failures, Vec::<String>::new());
        show(self.programmer.maps_mut())
    }
}

/// What a client would find in the maps, in words.
fn show(maps: &mut MemoryMaps) -> Vec<String> {
    let dump = maps.dump().expect("memory");
    let mut lines = Vec::new();
    for (key, entry) in &dump.services {
        let ids = maps.slots(entry.slots_offset, entry.slots_count).expect("inside the array");
        let backends: BTreeSet<String> =
            ids.iter().map(|id| dump.backends[id].socket_addr().to_string()).collect();
        let list = match backends.is_empty() {
            true => "(refused)".to_owned(),
            false => backends.into_iter().collect::<Vec<_>>().join(" "),
        };
        let protocol = key.protocol().expect("one that is balanced");
        lines.push(format!("{}/{protocol} -> {list}", key.socket_addr()));
    }
    for (key, entry) in &dump.ipcache {
        let (ip, len) = key.prefix();
        let host = if ip.is_ipv4() { 32 } else { 128 };
        let block = if len == host { ip.to_string() } else { format!("{ip}/{len}") };
        let node = std::net::IpAddr::from(entry.node);
        lines.push(format!("{block} is {} of cluster {} behind {node}", entry.identity, entry.cluster_id));
    }
    lines
}

fn hear(ledger: &mut Ledger, lines: &[&str]) -> Result<(), String> {
    for line in lines {
        let (key, value) = match line.strip_prefix("- ") {
            Some(key) => (key, None),
            None => {
                let (key, value) = line.split_once(' ').ok_or_else(|| format!("no value: {line:?}"))?;
                (key, Some(value.as_bytes()))
            }
        };
        let feed = feed(key).ok_or_else(|| format!("no feed has the key {key:?}"))?;
        ledger.apply(feed, Entry { key: key.as_bytes(), value });
    }
    Ok(())
}

fn feed(key: &str) -> Option<Feed> {
    if key.starts_with("isthmus/v1/local/services/") {
        return Some(Feed::LocalServices);
    }
    let kind =
        Kind::ALL.into_iter().find(|kind| key.starts_with(&format!("cilium/state/{}/", kind.segment())));
    kind.map(Feed::Records)
}

fn ledger(cluster: &str, id: &str) -> Ledger {
    let cluster = cluster.parse().expect("a cluster name");
    Ledger::new(Origin { cluster, id: id.parse().expect("a cluster id"), max: MaxClusters::N255 }, false)
}

fn sections(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let title = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --"));
        match (title, sections.last_mut()) {
            (Some(title), _) => sections.push((title, Vec::new())),
            (None, Some((_, body))) => body.push(line.trim()),
            (None, None) => {}
        }
    }
    sections
}
