//! Block statements: which addresses go with a passport whose authority cannot put them into it. STABLE FORMAT.
//!
//! The payload of a signed document ([`crate::signed`]):
//!
//! ```text
//! {"trust_domain":"mesh.example","cluster":"tokyo","id":2,"spki_sha256":"…","blocks":["10.2.0.0/16","fd00:10:2::/48"],
//!  "not_before":"2026-11-22T10:00:00Z","not_after":"2027-11-22T10:00:00Z"}
//! ```
//! Bound to the passport's key: it says nothing about any other. An organisation's own authority signs the passport with
//! name, id and name constraints; the authority of the mesh, which keeps the ledger, signs the addresses. Both must be
//! accepted where the passport is judged.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use topology::{ClusterId, ClusterName};

use crate::blocks::Blocks;
use crate::fingerprint::Fingerprint;
use crate::moment::Moment;
use crate::signed::{DocumentKind, Envelope, InvalidDocument};
use crate::spiffe::{ClusterUri, TrustDomain};

/// Holds what an authority says about the addresses of one passport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStatement {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// The cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// The passport's key.
    #[serde(rename = "spki_sha256")]
    pub spki: Fingerprint,
    /// Addresses of its pods and nodes.
    pub blocks: Vec<IpNet>,
    /// Since when it counts.
    pub not_before: Moment,
    /// Until when.
    pub not_after: Moment,
}

/// The statements that a process goes by, at most one of each key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statements(BTreeMap<Fingerprint, Stated>);

/// A statement whose signature holds.
#[derive(Clone, Debug)]
pub(crate) struct Stated {
    pub(crate) uri: ClusterUri,
    pub(crate) blocks: Blocks,
    pub(crate) signer: Fingerprint,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Statements {
    /// Takes a statement; of several of one key the one that was made last counts. Fails if its blocks are not all within what
    /// the signer has.
    pub(crate) fn add(
        &mut self,
        document: &Envelope,
        spki: &[u8],
        authority: &str,
        allowed: &Blocks,
    ) -> Result<(), InvalidDocument> {
        let statement: BlockStatement = document.open(spki, authority)?;
        let wrong = |found: String| InvalidDocument::Content {
            kind: DocumentKind::BlockStatement,
            signer: authority.to_owned(),
            found: format!("cluster {}: {found}", statement.cluster),
        };
        let blocks: Blocks = statement.blocks.iter().copied().collect();
        if blocks.is_empty() || blocks.reaches_mapped() {
            return Err(wrong(format!("blocks [{blocks}], expected some, and IPv4 blocks written as IPv4")));
        }
        if !allowed.covers(&blocks) {
            return Err(wrong(format!("it states {blocks}, its signer has {allowed}")));
        }
        let stated = Stated {
            uri: ClusterUri {
                trust_domain: statement.trust_domain,
                cluster: statement.cluster,
                id: statement.id,
            },
            blocks,
            signer: document.signer(),
            not_before: statement.not_before.into(),
            not_after: statement.not_after.into(),
        };
        let newer = self.0.get(&statement.spki).is_none_or(|known| known.not_before <= stated.not_before);
        if newer {
            self.0.insert(statement.spki, stated);
        }
        Ok(())
    }

    /// What is stated about a passport's key.
    pub(crate) fn get(&self, spki: Fingerprint) -> Option<&Stated> {
        self.0.get(&spki)
    }
}
