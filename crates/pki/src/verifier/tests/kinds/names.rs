//! What is wrong with the leaf's names.

use rcgen::SanType;

use super::parts::*;
use super::{Kind, Ours, Part, kind};
use crate::verifier::fixture::{set_common_name, set_uri};

pub(super) fn kinds() -> Vec<Kind> {
    use Ours::{Failed, Refused};
    use Part::{Constraints, LeafName, Uris};
    vec![
        kind("leaf without URI", Uris, Refused("the leaf has 0 URIs"), &[], OUR_RULE, |plan| {
            plan.leaf.push(|params| params.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_))));
        }),
        kind("leaf with two URIs", Uris, Refused("the leaf has 2 URIs"), &[], OUR_RULE, |plan| {
            plan.leaf.push(|params| add_uri(params, "spiffe://mesh.example/cluster/paris/node/n1/admin"));
        }),
        kind(
            "leaf whose URI names another cluster",
            Uris,
            Refused("its URI names paris"),
            &[],
            OUR_RULE,
            |plan| {
                plan.leaf
                    .push(|params| set_uri(params, "spiffe://mesh.example/cluster/paris/node/n1/remote"));
            },
        ),
        kind("leaf of another trust domain", Uris, Refused("in other.example"), &[], OUR_RULE, |plan| {
            plan.leaf.push(|params| set_uri(params, "spiffe://other.example/cluster/tokyo/node/n1/remote"));
        }),
        kind(
            "leaf of a role that nobody knows",
            Uris,
            Refused("expected spiffe://"),
            &[],
            OUR_RULE,
            |plan| {
                plan.leaf.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/node/n1/root"));
            },
        ),
        kind("leaf whose URI is a passport's", Uris, Refused("expected spiffe://"), &[], OUR_RULE, |plan| {
            plan.leaf.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/id/2"));
        }),
        kind(
            "leaf whose URI has another role",
            Uris,
            Refused("is not that of the role"),
            &[],
            OUR_RULE,
            |plan| {
                plan.leaf.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/node/n1/store"));
            },
        ),
        kind(
            "leaf that names another cluster",
            LeafName,
            Refused("common name names osaka"),
            &[],
            OUR_RULE,
            |plan| {
                plan.leaf.push(|params| set_common_name(params, "remote-osaka"));
            },
        ),
        kind(
            "leaf that names our administrator",
            LeafName,
            Refused("common name names paris"),
            &[],
            OUR_RULE,
            |plan| {
                plan.leaf.push(|params| set_common_name(params, "admin-paris"));
            },
        ),
        kind(
            "leaf of its own administrator",
            LeafName,
            Refused("counts only under this cluster's own"),
            &[],
            OUR_RULE,
            |plan| {
                plan.leaf.push(|params| set_common_name(params, "admin-tokyo"));
            },
        ),
        kind("leaf named root", LeafName, Refused("expected remote-<cluster>"), &[], OUR_RULE, |plan| {
            plan.leaf.push(|params| set_common_name(params, "root"));
        }),
        kind("leaf without a name", LeafName, Refused("expected remote-<cluster>"), &[], OUR_RULE, |plan| {
            plan.leaf.push(|params| params.distinguished_name = rcgen::DistinguishedName::new());
        }),
        kind("leaf with another cluster's DNS name", Constraints, Failed(NOT_PERMITTED), &[47], "", |plan| {
            plan.leaf.push(|params| add_dns(params, "paris.mesh.cilium.io"));
        }),
        kind(
            "leaf with a longer word for a DNS name",
            Constraints,
            Failed(NOT_PERMITTED),
            &[47],
            "",
            |plan| {
                plan.leaf.push(|params| add_dns(params, "eviltokyo.mesh.cilium.io"));
            },
        ),
        kind("leaf with a wildcard above its names", Constraints, Failed(NOT_PERMITTED), &[47], "", |plan| {
            plan.leaf.push(|params| add_dns(params, "*.mesh.cilium.io"));
        }),
        kind(
            "leaf with a wildcard below its names",
            Constraints,
            Refused("wildcard name"),
            &[],
            "the constraint permits all that lies below",
            |plan| plan.leaf.push(|params| add_dns(params, "*.tokyo.mesh.cilium.io")),
        ),
        kind("leaf with an address of nobody", Constraints, Failed(NOT_PERMITTED), &[47], "", |plan| {
            plan.leaf.push(|params| add_address(params, "8.8.8.8"));
        }),
        kind("leaf with an IPv6 address of nobody", Constraints, Failed(NOT_PERMITTED), &[47], "", |plan| {
            plan.leaf.push(|params| add_address(params, "2001:db8::1"));
        }),
        kind("leaf with an IPv4-mapped address", Constraints, Failed(NOT_PERMITTED), &[47], "", |plan| {
            plan.leaf.push(|params| add_address(params, "::ffff:10.2.0.1"));
        }),
    ]
}
