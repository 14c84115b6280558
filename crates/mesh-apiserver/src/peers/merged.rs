//! Which input counts for which peer. Pure.
//!
//! The input that is nearest to this process counts: its folder, then its Secret, then an object. It counts as a whole,
//! terms included, and also when what it says cannot be used: nothing else takes its place unseen. A pause by an object
//! counts before all of them.

use std::collections::{BTreeMap, BTreeSet};

use peering::config::HubConfig;
use topology::ClusterName;

use crate::finding::{Finding, Reason};

/// Where a peer's configuration comes from. The first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// A folder.
    Folder,
    /// A Secret in ClusterMesh's layout.
    Secret,
    /// `ClusterPeer` objects.
    Objects,
}

/// What one input says.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Which one it is.
    pub input: Input,
    /// Its name, such as the folder's path.
    pub name: String,
    /// It has been read at least once: it is certain whom it does not name.
    pub is_read: bool,
    /// Why it cannot be read now, if it cannot.
    pub trouble: Option<String>,
    /// How each peer is reached, and on which terms. What cannot be used says what it said before.
    pub configs: BTreeMap<ClusterName, HubConfig>,
    /// What cannot be used, by the name of a file, key or cluster, and why.
    pub problems: BTreeMap<String, String>,
    /// Peers with which nothing is to pass, each with the object that says so.
    pub paused: BTreeMap<ClusterName, String>,
    /// It says how peers are reached. Objects that this hub only writes out for its agents do not.
    pub names_peers: bool,
}

/// What follows from all inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// Every input has been read once, or says why it cannot be.
    pub is_settled: bool,
    /// Every input has been read: who is not named is no peer.
    pub is_complete: bool,
    /// Whom to follow.
    pub configs: BTreeMap<ClusterName, HubConfig>,
    /// Who says so, of each, in words.
    pub from: BTreeMap<ClusterName, (Input, String)>,
    /// Peers that nobody says how to reach.
    pub unusable: BTreeSet<ClusterName>,
    /// What is odd.
    pub findings: Vec<Finding>,
}

impl Said {
    /// An input that says nothing yet.
    pub fn unread(input: Input, name: impl Into<String>) -> Self {
        Self {
            input,
            name: name.into(),
            is_read: false,
            trouble: None,
            configs: BTreeMap::new(),
            problems: BTreeMap::new(),
            paused: BTreeMap::new(),
            names_peers: true,
        }
    }

    /// Whom it names: also by what cannot be used, if that has a cluster's name.
    fn claims(&self) -> BTreeSet<ClusterName> {
        let named = self.problems.keys().filter_map(|name| name.parse().ok());
        self.configs.keys().cloned().chain(named).collect()
    }

    /// What of it names a peer, in words.
    fn place(&self, cluster: &ClusterName) -> String {
        match self.input {
            Input::Folder => format!("file {}/{cluster}", self.name),
            Input::Secret => format!("key {cluster} of {}", self.name),
            Input::Objects => {
                let config = self.configs.get(cluster);
                let object = config.and_then(|config| config.terms.written_from.as_deref());
                format!("ClusterPeer {}", object.unwrap_or(cluster.as_str()))
            }
        }
    }

    /// What is said of a file, key or object that cannot be used.
    fn unusable(&self, name: &str, problem: &str) -> Finding {
        let (what, expected) = match self.input {
            Input::Objects => {
                (format!("ClusterPeer of cluster {name}"), "an object and a Secret that can be used")
            }
            Input::Folder | Input::Secret => {
                (format!("peer configuration {name} of {}", self.name), "a ClusterMesh client configuration")
            }
        };
        Finding::error(Reason::PeerUnusable, what)
            .found(problem)
            .expected(expected)
            .so("slices of that cluster's backends stay as they are")
    }
}

impl Merged {
    /// Merges what the inputs say. O(peers).
    pub fn of(inputs: &[&Said]) -> Self {
        let mut inputs = inputs.to_vec();
        inputs.sort_by_key(|said| said.input);
        let mut merged = Self {
            is_settled: inputs.iter().all(|said| said.is_read || said.trouble.is_some()),
            is_complete: inputs.iter().all(|said| said.is_read),
            ..Self::default()
        };
        let has_objects = inputs.iter().any(|said| said.input == Input::Objects && said.names_peers);
        let paused: BTreeMap<&ClusterName, &String> = inputs.iter().flat_map(|said| &said.paused).collect();
        for said in &inputs {
            // What is wrong with the kind of objects is said by those who follow it.
            let trouble = said.trouble.iter().filter(|_| said.input != Input::Objects);
            merged.findings.extend(trouble.map(|trouble| {
                Finding::error(Reason::PeerUnusable, &said.name)
                    .found(trouble)
                    .expected("to be read: it says who the peers are")
                    .so("its peers are followed as before")
            }));
            for cluster in said.claims() {
                let config = said.configs.get(&cluster);
                let object = config.and_then(|config| config.terms.written_from.as_ref());
                if has_objects && said.input != Input::Objects && object.is_some() {
                    // This hub wrote it for the agents: the object itself is here.
                    continue;
                }
                let place = said.place(&cluster);
                merged.claim(said, cluster, &place, config, &paused);
            }
            merged.findings.extend(said.problems.iter().map(|(name, problem)| said.unusable(name, problem)));
        }
        merged.findings.sort();
        merged
    }

    fn claim(
        &mut self,
        said: &Said,
        cluster: ClusterName,
        place: &str,
        config: Option<&HubConfig>,
        paused: &BTreeMap<&ClusterName, &String>,
    ) {
        if let Some(object) = paused.get(&cluster) {
            if said.input != Input::Objects {
                let found = format!("{place} names it, and ClusterPeer {object} pauses it");
                self.findings.push(
                    Finding::info(Reason::PeerClaimedTwice, format_args!("peer {cluster}"))
                        .found(found)
                        .so("the pause counts: the hub does not follow it"),
                );
            }
            return;
        }
        if let Some((_, first)) = self.from.get(&cluster) {
            self.findings.push(
                Finding::warning(Reason::PeerClaimedTwice, format_args!("peer {cluster}"))
                    .found(format_args!("{first} and {place} name it"))
                    .expected("one of them")
                    .so(format_args!("{first} counts, and nothing of what {place} says")),
            );
            return;
        }
        self.from.insert(cluster.clone(), (said.input, place.to_owned()));
        match config {
            Some(config) => drop(self.configs.insert(cluster, config.clone())),
            None => drop(self.unusable.insert(cluster)),
        }
    }
}

#[cfg(test)]
mod tests;
