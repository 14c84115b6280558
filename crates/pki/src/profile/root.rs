//! The root of a mesh.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};
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
    let params = root_params(key, now, life)?;
    let certificate = params.self_signed(key.pair()).map_err(|source| IssueError::Sign {
        issuer: format!("isthmus root {}", key.spki().short()),
        source,
    })?;
    Ok(certificate.der().clone())
}

/// What the certificate is to say; tests change it before signing.
pub(crate) fn root_params(
    key: &PrivateKey,
    now: SystemTime,
    life: Duration,
) -> Result<CertificateParams, IssueError> {
    let mut params = base(&format!("isthmus root {}", key.spki().short()), now, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.custom_extensions = vec![blocks_extension(&Blocks::everything())];
    Ok(params)
}
