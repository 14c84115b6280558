//! What is wrong with the chain as it is shown, and with servers.

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

use super::parts::*;
use super::{Kind, Ours, Part, kind};
use crate::key::{KeyKind, PrivateKey};
use crate::profile::LeafRole;
use crate::verifier::fixture::{set_common_name, set_uri};
use crate::verifier::tests::chains::Plan;

pub(super) fn kinds() -> Vec<Kind> {
    let mut kinds = of_the_chain();
    kinds.extend(of_servers());
    kinds
}

fn of_the_chain() -> Vec<Kind> {
    use Ours::{Failed, Refused};
    use Part::Alone;
    vec![
        kind("passport not shown", Alone, Failed("leaf, then its passport"), &[20], "", |plan| {
            plan.after.push(|made| made.sent.clear());
        }),
        kind("another passport shown", Alone, Failed("no path to an accepted root"), &[20], "", |plan| {
            plan.after.push(|made| {
                let other = Plan::of(LeafRole::Remote).make();
                made.sent = vec![other.passport];
            });
        }),
        kind(
            "too many certificates shown",
            Alone,
            Failed("it sent 10 certificates, expected at most 8"),
            &[],
            "a bound of ours",
            |plan| plan.after.push(|made| made.sent = vec![made.passport.clone(); 9]),
        ),
        kind(
            "leaf of the root itself",
            Alone,
            Refused("0 certificates between leaf and CN=isthmus root"),
            &[],
            OUR_RULE,
            |plan| plan.after.push(|made| made.leaf = made.by_root(&leaf(), &made.keys[2])),
        ),
        kind(
            "authority below a passport",
            Alone,
            Failed("an authority below a passport"),
            &[25],
            "",
            |plan| {
                plan.after.push(|made| {
                    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
                    let mut params = leaf();
                    set_common_name(&mut params, "authority");
                    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                    params.extended_key_usages.clear();
                    let authority = made.by_passport(&params, &key);
                    made.leaf = made.by(&authority, &key, &leaf(), &made.keys[2]);
                    made.sent.insert(0, authority);
                });
            },
        ),
        kind("leaf below a leaf", Alone, Failed("signed by a leaf"), &[24, 25, 79], "", |plan| {
            plan.after.push(|made| {
                let key = PrivateKey::generate(KeyKind::P256).expect("a key");
                let below = made.by(&made.leaf, &made.keys[2], &leaf(), &key);
                made.sent.insert(0, std::mem::replace(&mut made.leaf, below));
            });
        }),
        kind("passport shown as a leaf", Alone, Failed("it is a certificate authority"), &[26], "", |plan| {
            plan.after.push(|made| made.leaf = made.passport.clone());
        }),
    ]
}

fn of_servers() -> Vec<Kind> {
    use Ours::Failed;
    use Part::Alone;
    vec![
        kind("client's leaf as a server", Alone, Failed("does not list serverAuth"), &[26, 62], "", |plan| {
            plan.after.push(|made| made.dialled = Some("tokyo.mesh.cilium.io"));
        }),
        kind(
            "server of another name",
            Alone,
            Failed("it is not valid for osaka.mesh.cilium.io"),
            &[62],
            "",
            |plan| {
                plan.role = LeafRole::Hub;
                plan.after.push(|made| made.dialled = Some("osaka.mesh.cilium.io"));
            },
        ),
        kind("server that is no hub", Alone, Failed("is not that of the role etcd"), &[], OUR_RULE, |plan| {
            plan.role = LeafRole::Hub;
            plan.leaf.push(|params| {
                set_common_name(params, "isthmus etcd");
                set_uri(params, "spiffe://mesh.example/cluster/tokyo/node/n1/etcd");
            });
        }),
        kind(
            "server of another cluster",
            Alone,
            Failed("cluster osaka's, expected tokyo's"),
            &[],
            OUR_RULE,
            |plan| {
                plan.role = LeafRole::Hub;
                plan.passport.push(|params| set_uri(params, "spiffe://mesh.example/cluster/osaka/id/2"));
                plan.leaf.push(|params| set_uri(params, "spiffe://mesh.example/cluster/osaka/node/n1/hub"));
            },
        ),
    ]
}
