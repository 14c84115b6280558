//! A policy as the hub keeps it.

use super::ObjectKind;

/// That there is a policy, and that it is sound. What it says is read by nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its kind, one of [`ObjectKind::POLICIES`].
    pub kind: ObjectKind,
    /// Its namespace, if its kind has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
}
