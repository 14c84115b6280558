//! What is wrong with the leaf, its names apart.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::parts::*;
use super::{Kind, Ours, Part, kind};
use crate::key::{KeyKind, PrivateKey};
use crate::profile::{life, set_validity};
use crate::verifier::fixture::{ago, now};
use crate::verifier::tests::documents;

pub(super) fn kinds() -> Vec<Kind> {
    use Ours::{Failed, Refused};
    use Part::{Alone, LeafDates, LeafUsage};
    vec![
        kind("leaf ended", LeafDates, Failed("a certificate of its chain ended at"), &[10], "", |plan| {
            plan.leaf.push(|params| set_validity(params, ago(3), ago(1)));
        }),
        kind("leaf not yet valid", LeafDates, Failed("starts at"), &[9], "", |plan| {
            plan.leaf.push(|params| set_validity(params, now() + HOUR, now() + life::CLIENT));
        }),
        kind(
            "leaf without extended key usage",
            LeafUsage,
            Failed("no extended key usage"),
            &[],
            USAGE,
            |plan| {
                plan.leaf.push(|params| params.extended_key_usages.clear());
            },
        ),
        kind("leaf for servers only", LeafUsage, Failed("does not list clientAuth"), &[26], "", |plan| {
            plan.leaf.push(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        }),
        kind("leaf for mail", LeafUsage, Failed("does not list clientAuth"), &[26], "", |plan| {
            plan.leaf
                .push(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]);
        }),
        kind("leaf without key usage", LeafUsage, Failed("lacks the key usage"), &[], USAGE, |plan| {
            plan.leaf.push(|params| params.key_usages.clear());
        }),
        kind("leaf for key agreement only", LeafUsage, Failed("lacks the key usage"), &[], USAGE, |plan| {
            plan.leaf.push(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
        }),
        kind("leaf for key encipherment only", LeafUsage, Failed("lacks the key usage"), &[26], "", |plan| {
            plan.leaf.push(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
        }),
        kind(
            "leaf that is an authority",
            LeafUsage,
            Failed("it is a certificate authority, expected a leaf"),
            &[],
            "it lets an authority also be an end, and counts path length only for what follows",
            |plan| {
                plan.leaf.push(|params| {
                    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
                });
            },
        ),
        kind("leaf with a critical extension that nobody knows", Alone, Failed(""), &[34], "", |plan| {
            plan.leaf.push(|params| params.custom_extensions.push(unknown_critical()));
        }),
        kind("leaf with a changed byte", Alone, Failed(""), &[7], "", |plan| {
            plan.after.push(|made| made.leaf = changed_signature(&made.leaf));
        }),
        kind("leaf signed with another key", Alone, Failed(""), &[7, 20, 30], "", |plan| {
            plan.after.push(|made| {
                let key = PrivateKey::generate(KeyKind::P256).expect("a key");
                let mut params = leaf();
                params.use_authority_key_identifier_extension = false;
                made.leaf = made.by(&made.passport, &key, &params, &made.keys[2]);
            });
        }),
        kind("leaf revoked", Alone, Refused("it was revoked at"), &[], OUR_DOCUMENT, |plan| {
            plan.after.push(|made| documents::revoke(made, false));
        }),
        kind(
            "passport revoked",
            Alone,
            Refused("its passport, that of tokyo, was revoked at"),
            &[],
            OUR_DOCUMENT,
            |plan| {
                plan.after.push(|made| documents::revoke(made, true));
            },
        ),
    ]
}
