//! Whom to believe that a hub is that of a peer.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use topology::block::parse_block;

use crate::schema;

/// Where the roots of a peer are, and whether it has a passport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("not" = {"required": ["bundle", "secretRef"]}))]
pub struct Trust {
    /// The roots that the peer's chain must end in, as PEM. They are public; not together with secretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536), regex(pattern = schema::PEM))]
    pub bundle: Option<String>,
    /// A Secret with the roots as ca.crt, and, if the peer wants a client certificate of its own making (as stock
    /// ClusterMesh peers do), with that as tls.crt and tls.key. In the namespace of the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// The peer has no passport: a stock Cilium cluster. Its addresses are then bounded by what is given here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattested: Option<Unattested>,
}

/// A Secret in the namespace of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::OBJECT_NAME))]
    pub name: String,
}

/// What is known of a cluster that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unattested {
    /// The blocks of its nodes and pods.
    #[schemars(length(min = 1, max = 256), inner(length(max = 49), regex(pattern = schema::BLOCK)))]
    pub cidrs: Vec<String>,
}

/// What is wrong with what an operator says about trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Roots from two places.
    #[error("both bundle and secretRef are given, expected one of them")]
    TwoSources,
    /// No certificate in it.
    #[error("bundle holds no PEM certificate")]
    NoCertificate,
    /// A block that is none.
    #[error("unattested.cidrs: {0:?} is no address block, expected such as 10.0.0.0/8")]
    Block(String),
}

impl Trust {
    /// The blocks of an unattested peer. Fails with what has no meaning.
    pub(crate) fn check(&self) -> Result<Option<Vec<IpNet>>, Problem> {
        if self.bundle.is_some() && self.secret_ref.is_some() {
            return Err(Problem::TwoSources);
        }
        if self.bundle.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
            return Err(Problem::NoCertificate);
        }
        let block = |text: &String| parse_block(text).map_err(|_not_one| Problem::Block(text.clone()));
        self.unattested.as_ref().map(|unattested| unattested.cidrs.iter().map(block).collect()).transpose()
    }
}
