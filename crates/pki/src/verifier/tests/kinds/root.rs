//! What is wrong with the root.

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

use super::parts::*;
use super::{Kind, Ours, Part, kind};
use crate::profile::{life, set_validity};
use crate::verifier::fixture::{ago, now, space};

pub(super) fn kinds() -> Vec<Kind> {
    use Ours::{Failed, Refused};
    use Part::{Alone, Blocks, RootDates, RootShape};
    vec![
        kind("root ended", RootDates, Failed("the accepted root CN=isthmus root"), &[10], "", |plan| {
            plan.root.push(|params| set_validity(params, ago(30), ago(1)));
        }),
        kind("root not yet valid", RootDates, Failed("starts at"), &[9], "", |plan| {
            plan.root.push(|params| set_validity(params, now() + HOUR, now() + life::ROOT));
        }),
        kind("root without blocks", Blocks, Refused("carries no address blocks"), &[46], "", |plan| {
            plan.root.push(|params| params.custom_extensions.clear());
        }),
        kind(
            "root with other IPv4 blocks",
            Blocks,
            Refused("the root has 10.128.0.0/9"),
            &[46],
            "",
            |plan| {
                plan.root.push(|params| set_blocks(params, &space(&["10.128.0.0/9", "::/0"]).to_der()));
            },
        ),
        kind(
            "root with other IPv6 blocks",
            Blocks,
            Refused("the root has 0.0.0.0/0, fd01::"),
            &[46],
            "",
            |plan| {
                plan.root.push(|params| set_blocks(params, &space(&["0.0.0.0/0", "fd01::/16"]).to_der()));
            },
        ),
        kind("root with IPv4 blocks only", Blocks, Refused("the root has 0.0.0.0/0"), &[46], "", |plan| {
            plan.root.push(|params| set_blocks(params, &space(&["0.0.0.0/0"]).to_der()));
        }),
        kind(
            "root whose blocks are not canonical",
            Blocks,
            Failed("not in canonical form"),
            &[41],
            "",
            |plan| {
                plan.root.push(|params| set_blocks(params, &UNMERGED));
            },
        ),
        kind("root that may not sign", RootShape, Failed("keyCertSign"), &[32, 79], "", |plan| {
            plan.root.push(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
        }),
        kind(
            "root that is no authority",
            RootShape,
            Failed("no certificate authority"),
            &[79, 24, 32],
            "",
            |plan| {
                plan.root.push(|params| params.is_ca = IsCa::ExplicitNoCa);
            },
        ),
        kind("root with path length 0", RootShape, Failed("whose path length is 0"), &[25], "", |plan| {
            plan.root.push(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        }),
        kind("another root, same name", Alone, Failed(""), &[7, 20, 30], "", |plan| {
            plan.after.push(|made| made.trusted = vec![namesake(made)]);
        }),
        kind(
            "two accepted roots of one name",
            Alone,
            Failed("two authorities named"),
            &[],
            "it tries both; we refuse the file, since path building with many gives up",
            |plan| plan.after.push(|made| made.trusted.push(namesake(made))),
        ),
        kind("another root", Alone, Failed("no path to an accepted root"), &[20], "", |plan| {
            plan.after.push(|made| made.trusted = vec![other_root()]);
        }),
        kind(
            "65 roots",
            Alone,
            Failed("65 authorities, expected at most 64"),
            &[],
            "a bound of ours",
            |plan| {
                plan.after.push(|made| made.trusted = vec![made.trusted[0].clone(); 65]);
            },
        ),
        kind("root with a changed byte", Alone, Failed(""), &[7, 18, 20, 30, 47, 79, 0], "", |plan| {
            plan.after.push(|made| made.trusted[0] = changed_key(&made.trusted[0]));
        }),
    ]
}
