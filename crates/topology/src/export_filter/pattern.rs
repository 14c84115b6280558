//! Lists of names with wildcards.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A name in which `*` stands for any number of characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

/// `<namespace>/<name>`, each a [`Glob`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceGlob {
    namespace: Glob,
    name: Glob,
}

/// What is included and what is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Lists<P>", bound(deserialize = "P: Deserialize<'de> + Ord"))]
pub struct Patterns<P> {
    /// One of them must match; if there are none, everything does.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    include: BTreeSet<P>,
    /// None of them may match.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    exclude: BTreeSet<P>,
}

/// Why a text or list is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// A name has characters that no name has.
    #[error("pattern {found:?}: expected 1 to {MAX_GLOB} of letters, digits, '-', '.', '_', '*' and '?'")]
    Name {
        /// The text, cut.
        found: String,
    },
    /// A service is not spelt as one.
    #[error("pattern {found:?}: expected <namespace>/<name>, such as shop/* or */public-*")]
    Service {
        /// The text, cut.
        found: String,
    },
    /// `include: []` could mean nothing or everything.
    #[error(
        "include is an empty list: leave it out to include everything, or write exclude: [\"*\"] (services: [\"*/*\"]) to \
         include nothing"
    )]
    EmptyInclude,
    /// A list is longer than is served.
    #[error("{found} patterns in a list, expected at most {MAX_PATTERNS}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}

/// Holds the lists as users write them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "P: Deserialize<'de> + Ord"))]
struct Lists<P> {
    include: Option<BTreeSet<P>>,
    #[serde(default)]
    exclude: BTreeSet<P>,
}

impl Glob {
    /// Whether the whole of `name` is as the pattern says. O(pattern × name) at worst.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on if what follows the last `*` does not fit: it then stands for one character more.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match (pattern.get(p), name.get(n)) {
                (Some(b'*'), _) => {
                    star = Some((p + 1, n));
                    p += 1;
                }
                (Some(wanted), Some(found)) if *wanted == b'?' || wanted == found => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((after, taken)) = star else { return false };
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
            }
        }
        pattern.iter().skip(p).all(|rest| *rest == b'*')
    }
}

impl TryFrom<String> for Glob {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*?".contains(&byte);
        if (1..=MAX_GLOB).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text))
        } else {
            Err(InvalidPattern::Name { found: cut(&text) })
        }
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ServiceGlob {
    /// Whether both parts match.
    pub fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.matches(namespace) && self.name.matches(name)
    }
}

impl TryFrom<String> for ServiceGlob {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(InvalidPattern::Service { found: cut(&text) });
        };
        if name.contains('/') {
            return Err(InvalidPattern::Service { found: cut(&text) });
        }
        Ok(Self { namespace: namespace.to_owned().try_into()?, name: name.to_owned().try_into()? })
    }
}

impl From<ServiceGlob> for String {
    fn from(glob: ServiceGlob) -> Self {
        format!("{}/{}", glob.namespace, glob.name)
    }
}

impl<P: Ord> Patterns<P> {
    /// Whether it hides nothing.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    fn admit(&self, matches: impl Fn(&P) -> bool) -> bool {
        (self.include.is_empty() || self.include.iter().any(&matches)) && !self.exclude.iter().any(&matches)
    }
}

impl Patterns<Glob> {
    /// Whether a name is included and not excluded.
    pub fn admit_name(&self, name: &str) -> bool {
        self.admit(|glob| glob.matches(name))
    }
}

impl Patterns<ServiceGlob> {
    /// Whether a service is included and not excluded.
    pub fn admit_service(&self, namespace: &str, name: &str) -> bool {
        self.admit(|glob| glob.matches(namespace, name))
    }
}

impl<P> Default for Patterns<P> {
    fn default() -> Self {
        Self { include: BTreeSet::new(), exclude: BTreeSet::new() }
    }
}

impl<P> TryFrom<Lists<P>> for Patterns<P> {
    type Error = InvalidPattern;

    fn try_from(lists: Lists<P>) -> Result<Self, Self::Error> {
        let Lists { include, exclude } = lists;
        if include.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(InvalidPattern::EmptyInclude);
        }
        let include = include.unwrap_or_default();
        let found = include.len().max(exclude.len());
        if found > MAX_PATTERNS {
            return Err(InvalidPattern::TooMany { found });
        }
        Ok(Self { include, exclude })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Bytes of the longest Kubernetes name.
const MAX_GLOB: usize = 253;
/// Each is tried on each record.
const MAX_PATTERNS: usize = 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        text.to_owned().try_into().expect("a pattern")
    }

    #[test]
    fn a_pattern_is_the_whole_name() {
        for (pattern, name, expected) in [
            ("shop", "shop", true),
            ("shop", "shops", false),
            ("shop", "sho", false),
            ("shop-*", "shop-", true),
            ("shop-*", "shop", false),
            ("*", "", true),
            ("*-a*b", "x-a-ab", true),
            ("*-a*b", "x-a-abc", false),
            ("sh?p", "shop", true),
            ("sh?p", "shp", false),
        ] {
            assert_eq!(glob(pattern).matches(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        let too_long = "x".repeat(254);
        for bad in ["", "a/b", "a b", "ä", "[a-z]", too_long.as_str()] {
            assert!(Glob::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        for bad in ["shop", "/x", "shop/", "a/b/c", "a/b*c d"] {
            assert!(ServiceGlob::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        let parsed = serde_json::from_str::<Patterns<Glob>>(r#"{"include":[]}"#);
        assert!(parsed.is_err_and(|error| error.to_string().contains("include is an empty list")));
        assert!(serde_json::from_str::<Patterns<Glob>>(r#"{"includes":["a"]}"#).is_err());
    }

    /// The same by another way: every way of what `*` may stand for.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', after)), rest) => {
                slowly(after, name) || rest.is_some_and(|(_, name)| slowly(pattern, name))
            }
            (Some((b'?', after)), Some((_, name))) => slowly(after, name),
            (Some((wanted, after)), Some((found, name))) => wanted == found && slowly(after, name),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn wildcards_stand_for_anything(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(glob(&pattern).matches(&name), slowly(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
