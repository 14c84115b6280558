//! What each certificate of a mesh looks like. One place for issuing; reading is in `passport` and `verifier`.
//!
//! A leaf of the role `etcd` is as a hub's, with the names asked for and loopback alone; one of the role `store` is as a
//! client's, with the name `store.<cluster>.mesh.cilium.io`.
//!
//! | | root | passport | hub leaf | client leaf |
//! |---|---|---|---|---|
//! | subject | `isthmus root <8 hex>` | `isthmus cluster <name>` | `isthmus hub` | `remote-<cluster>` … |
//! | CA, path length | yes, 1 | yes, 0 | no | no |
//! | key usage | certSign, cRLSign | certSign, cRLSign | digitalSignature | digitalSignature |
//! | extended | none | none | server, client | client |
//! | URI | none | cluster | leaf | leaf |
//! | name constraints | none | DNS and IP, permitted only | none | none |
//! | RFC 3779 blocks | everything | pod and node CIDRs | none | none |
//!
//! All: version 3, 16 random bytes of serial, valid from five minutes ago, both key identifiers.

mod leaf;
mod passport;
mod root;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, SerialNumber};
use ring::rand::{SecureRandom, SystemRandom};

use crate::blocks::{self, Blocks};

#[cfg(test)]
pub(crate) use leaf::leaf_params;
pub use leaf::{LeafRole, LeafSpec, UnknownRole, issue_leaf, store_name};
#[cfg(test)]
pub(crate) use passport::passport_params;
pub(crate) use passport::{HUBBLE_SUFFIX, MESH_SUFFIX, SHARED_NAMES, own_names};
pub use passport::{PassportSpec, issue_passport};
pub use root::issue_root;
#[cfg(test)]
pub(crate) use root::root_params;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refused the parameters or the key.
    #[error("sign a certificate as {issuer}")]
    Sign {
        /// Who signs.
        issuer: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// A name that cannot stand in a certificate.
    #[error("name {name:?} cannot stand in a certificate; expected ASCII")]
    Name {
        /// The name.
        name: String,
    },
    /// The issuer's certificate is about to end, or has ended.
    #[error("the issuer's certificate ends at {ends}, nothing can be issued any more; renew it first")]
    IssuerEnds {
        /// Its notAfter.
        ends: jiff::Timestamp,
    },
    /// An issuer's name that cannot be written into what it signs.
    #[error(
        "the issuer's name {name} has an attribute twice, which cannot be written; have a passport whose subject has each attribute once"
    )]
    RepeatedAttribute {
        /// The name.
        name: String,
    },
    /// What was issued does not pass our own verifier.
    #[error("the new {subject} does not verify: {found}; nothing was issued")]
    Unsound {
        /// The certificate in words.
        subject: String,
        /// What the verifier said.
        found: String,
    },
}

/// How long certificates live if nobody says otherwise.
pub mod life {
    use std::time::Duration;

    /// A root: ten years.
    pub const ROOT: Duration = days(3653);
    /// A passport: one year.
    pub const PASSPORT: Duration = days(366);
    /// A hub's leaf: thirty days.
    pub const HUB: Duration = days(30);
    /// A client's leaf: one day.
    pub const CLIENT: Duration = days(1);

    const fn days(days: u64) -> Duration {
        Duration::from_secs(days * 24 * 60 * 60)
    }
}

/// Parameters with everything set that no certificate should take from the library's defaults.
fn base(common_name: &str, now: SystemTime, life: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    set_validity(&mut params, now - CLOCK_SKEW, now + life);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Sets both ends, in whole seconds; times before 1970 become 1970.
pub(crate) fn set_validity(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    let seconds =
        |time: SystemTime| Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(from);
    params.not_after = epoch + seconds(until);
}

/// 16 random bytes, first bit 0 (so that they are a positive number of 16 bytes).
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_error| IssueError::Random)?;
    // The second bit keeps the first byte from being zero, which would shorten the number.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The RFC 3779 extension; not critical, because webpki and Go refuse critical extensions that they do not know.
fn blocks_extension(blocks: &Blocks) -> CustomExtension {
    CustomExtension::from_oid_content(blocks::OID, blocks.to_der())
}

/// Peers' clocks may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
