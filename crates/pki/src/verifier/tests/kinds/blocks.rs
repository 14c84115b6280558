//! What is wrong with the passport's blocks.

use super::parts::*;
use super::{Kind, Ours, Part, kind};
use crate::verifier::fixture::space;

pub(super) fn kinds() -> Vec<Kind> {
    use Ours::{Failed, Refused};
    use Part::Blocks;
    vec![
        kind(
            "passport without blocks",
            Blocks,
            Refused("carries no address blocks"),
            &[],
            NO_BLOCKS,
            |plan| {
                plan.passport.push(|params| params.custom_extensions.clear());
            },
        ),
        kind(
            "passport with empty blocks",
            Blocks,
            Refused("carries no address blocks"),
            &[],
            NO_BLOCKS,
            |plan| {
                plan.passport.push(|params| set_blocks(params, &[0x30, 0]));
            },
        ),
        kind("passport that inherits its blocks", Blocks, Refused("found inherit"), &[], NO_BLOCKS, |plan| {
            plan.passport.push(|params| set_blocks(params, &INHERIT));
        }),
        kind("passport with blocks of a SAFI", Blocks, Refused("without a SAFI"), &[46], "", |plan| {
            plan.passport.push(|params| set_blocks(params, &SAFI));
        }),
        kind("passport with unmerged blocks", Blocks, Refused("not in canonical form"), &[41], "", |plan| {
            plan.passport.push(|params| set_blocks(params, &UNMERGED));
        }),
        kind(
            "passport with blocks out of order",
            Blocks,
            Refused("not in canonical form"),
            &[41],
            "",
            |plan| {
                plan.passport.push(|params| set_blocks(params, &UNSORTED));
            },
        ),
        kind("passport with cut blocks", Blocks, Refused("malformed DER"), &[20], "", |plan| {
            plan.passport.push(|params| set_blocks(params, &UNMERGED[..9]));
        }),
        kind(
            "passport with IPv4 blocks written as IPv6",
            Blocks,
            Refused("::ffff:0:0/96"),
            &[],
            "to it these are IPv6 addresses like others",
            |plan| plan.passport.push(|params| set_blocks(params, &space(&["10.2.0.0/16", "::/0"]).to_der())),
        ),
        kind(
            "passport with critical blocks",
            Blocks,
            Failed(""),
            &[],
            "it knows the extension; webpki and Go do not, and so refuse what is critical",
            |plan| {
                plan.passport.push(|params| {
                    params.custom_extensions.iter_mut().for_each(|extension| extension.set_criticality(true));
                });
            },
        ),
        kind("passport with blocks twice", Blocks, Refused("malformed or there twice"), &[20], "", |plan| {
            plan.passport.push(|params| {
                let again = params.custom_extensions[0].clone();
                params.custom_extensions.push(again);
            });
        }),
    ]
}
