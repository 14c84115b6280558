//! The table of broken chains: what each is, what we say, what `openssl verify` says, and why, where the two differ.

mod blocks;
mod chain;
mod leaf;
mod names;
mod parts;
mod passport;
mod root;

use super::chains::Plan;

/// One way to be broken.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Kinds of different parts can be combined; those of `Alone` with none.
    pub(super) part: Part,
    pub(super) ours: Ours,
    /// The errors of `openssl verify`; any one of them will do. None: it accepts.
    pub(super) openssl: &'static [u32],
    /// Why OpenSSL accepts what we do not.
    pub(super) why: &'static str,
    pub(super) make: fn(&mut Plan),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    RootDates,
    RootShape,
    PassportDates,
    PassportUsage,
    /// The root's matter only if the passport has some.
    Blocks,
    /// Of the passport and of the leaf: two that are wrong alike fit each other.
    Uris,
    /// The passport's, and what the leaf has beyond them.
    Constraints,
    LeafDates,
    LeafUsage,
    LeafName,
    Alone,
}

/// What we say: a part of the sentence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ours {
    /// The chain is sound, our rules refuse it: the peer is told.
    Refused(&'static str),
    /// The handshake fails.
    Failed(&'static str),
}

pub(super) fn kinds() -> Vec<Kind> {
    let mut kinds = root::kinds();
    kinds.extend(passport::kinds());
    kinds.extend(blocks::kinds());
    kinds.extend(leaf::kinds());
    kinds.extend(names::kinds());
    kinds.extend(chain::kinds());
    kinds
}

fn kind(
    name: &'static str,
    part: Part,
    ours: Ours,
    openssl: &'static [u32],
    why: &'static str,
    make: fn(&mut Plan),
) -> Kind {
    Kind { name, part, ours, openssl, why, make }
}
