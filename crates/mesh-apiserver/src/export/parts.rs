//! What is computed in one go, and what comes of it.

use std::net::IpAddr;

use bytes::Bytes;
use topology::Identity;

use crate::finding::Finding;

/// A unit of computation. Each published key belongs to exactly one part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The cluster's configuration.
    Config,
    /// A node record, by node name.
    Node(String),
    /// A number and its labels.
    Identity(Identity),
    /// An address and who has it.
    Address(IpAddr),
    /// A pod's own oddities, by namespace and name. It publishes nothing itself.
    Pod(String, String),
    /// A service as peers and as the own agents see it, by namespace and name.
    Service(String, String),
    /// An endpoint slice, by namespace and name.
    Slice(String, String),
    /// Identities of other clusters' numbers. It publishes nothing itself.
    Foreign,
}

/// What comes of one part: a pure function of the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// What is to be published, key and value: one record, two for a service. Each key stands once.
    pub records: Vec<(String, Bytes)>,
    /// What is odd.
    pub findings: Vec<Finding>,
}

impl Output {
    /// Nothing published, nothing odd.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.findings.is_empty()
    }

    /// Adds a record.
    pub fn publish(&mut self, key: String, value: Vec<u8>) {
        // There is one part for each address of a pod: no room is left over.
        self.records.reserve_exact(1);
        self.records.push((key, Bytes::from(value)));
    }

    /// The record of a key.
    pub fn record(&self, key: &str) -> Option<&Bytes> {
        self.records.iter().find_map(|(other, value)| (other == key).then_some(value))
    }
}
