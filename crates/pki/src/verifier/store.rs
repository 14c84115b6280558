//! The etcd behind a hub's store, and the hub as its client.
//!
//! An etcd knows no namespaces of names: whoever has a certificate below what it trusts may bear any common name, `root`
//! and the administrators' included. So what it trusts must be this cluster's alone: its passport. The same holds for
//! what the hub trusts when it dials: below a mesh root, every member could be the store.

use std::sync::Arc;

use webpki::VerifiedPath;
use x509_parser::certificate::X509Certificate;

use super::identity::{Accepted, Role};
use super::judge::{Finding, leaf_names};
use super::refusal::Refusal;
use crate::certificate::{self, printable};
use crate::deny::CertificateId;
use crate::profile::LeafRole;
use crate::trust::{Anchor, AnchorKind};

/// Judges the other side: a certificate of this role below the cluster's passport, or any below an authority that the
/// operator keeps for this etcd alone.
pub(super) fn judge_store(
    role: LeafRole,
    anchor: &Anchor,
    path: &VerifiedPath<'_>,
    x509: &X509Certificate<'_>,
    leaf: CertificateId,
) -> Result<Accepted, Finding> {
    let common_name = certificate::common_name(x509).unwrap_or_default();
    let ends = certificate::time(x509.validity().not_after).min(anchor.not_after);
    let accepted = Role::Store { common_name: printable(common_name) };
    match &anchor.kind {
        AnchorKind::Root(_) | AnchorKind::Unattested => {
            Err(Refusal::StoreOfAnyone { anchor: anchor.subject.clone() }.into())
        }
        AnchorKind::Plain => Ok(Accepted {
            role: accepted,
            passport: None,
            expires: ends,
            anchor: anchor.id(anchor.spki),
            leaf,
        }),
        AnchorKind::Passport(passport) => {
            let between = path.intermediate_certificates().count();
            if between > 0 {
                return Err(Refusal::Shape { between, anchor: anchor.subject.clone() }.into());
            }
            let passport = Arc::clone(passport);
            let uri = leaf_names(x509, &passport)?;
            if uri.role != role || common_name != role.common_name(&passport.uri.cluster) {
                let common_name = printable(common_name);
                return Err(Refusal::NotStore { common_name, role: uri.role, expected: role }.into());
            }
            let expires = ends.min(passport.not_after);
            let anchor = anchor.id(anchor.spki);
            Ok(Accepted { role: accepted, passport: Some(passport), expires, anchor, leaf })
        }
    }
}
