//! The root of a mesh.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::{IssueError, base, blocks_extension};
use crate::blocks::Blocks;
use crate::key::PrivateKey;

/// Makes a self-signed root that carries all addresses. Its name has the key's fingerprint in it: two roots of one
/// name would make path building in webpki try signatures until it gives up.
pub fn issue_root(
    key: &PrivateKey,
    now: SystemTime,
    life: Duration,
) -> Result<CertificateDer<'static>, IssueError> {
    let subject = format!("isthmus root {}", key.spki().short());
    let mut params = base(&subject, now, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.custom_extensions = vec![blocks_extension(&Blocks::everything())];
    let certificate =
        params.self_signed(key.pair()).map_err(|source| IssueError::Sign { issuer: subject, source })?;
    Ok(certificate.der().clone())
}
