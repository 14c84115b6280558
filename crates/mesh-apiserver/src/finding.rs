//! What is odd about the input: one value an oddity, shown in the log, in `/status` and in a counter.

use std::fmt;

use serde::Serialize;

/// One oddity of one object. It stops nothing else; it is gone when its cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of oddity, as a short word for counting.
    pub reason: Reason,
    /// The object, such as `Service shop/cart`, or a file.
    pub object: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// What the hub does about it, and what to do to end it.
    pub consequence: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that the object asks for is not done.
    Error,
    /// Something is done in another way than the object seems to ask for.
    Warning,
    /// Worth knowing; often on purpose.
    Info,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words say it; each is explained where it is found")]
pub enum Reason {
    FileUnreadable,
    FileTooLarge,
    TooManyFiles,
    DocumentInvalid,
    KindIgnored,
    DefinedTwice,
    AnnotationValue,
    NothingExported,
    SelectorMatchesNothing,
    AddressInvalid,
    AddressClaimedTwice,
    PortInvalid,
    AddressType,
    ServiceMissing,
    BlockInvalid,
    NodeWithoutAddress,
    IdentitiesExhausted,
    IdentitiesNearlyExhausted,
    IdentitiesInStore,
    IdentityForeign,
    IdentityObjects,
    LabelInvalid,
    PeerFiltersInvalid,
    SourceDenied,
    SourceUnreachable,
    CustomResourcesAbsent,
    LeaderLease,
    ObjectInvalid,
    ObjectConflict,
    PeerUnusable,
    PeerClaimedTwice,
    SlicesNotWritten,
    SlicesForeign,
    AffinityNotKept,
}

impl Reason {
    /// The word for it, in logs, metrics and `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileUnreadable => "file-unreadable",
            Self::FileTooLarge => "file-too-large",
            Self::TooManyFiles => "too-many-files",
            Self::DocumentInvalid => "document-invalid",
            Self::KindIgnored => "kind-ignored",
            Self::DefinedTwice => "defined-twice",
            Self::AnnotationValue => "annotation-value",
            Self::NothingExported => "nothing-exported",
            Self::SelectorMatchesNothing => "selector-matches-nothing",
            Self::AddressInvalid => "address-invalid",
            Self::AddressClaimedTwice => "address-claimed-twice",
            Self::PortInvalid => "port-invalid",
            Self::AddressType => "address-type",
            Self::ServiceMissing => "service-missing",
            Self::BlockInvalid => "block-invalid",
            Self::NodeWithoutAddress => "node-without-address",
            Self::IdentitiesExhausted => "identities-exhausted",
            Self::IdentitiesNearlyExhausted => "identities-nearly-exhausted",
            Self::IdentitiesInStore => "identities-in-store",
            Self::IdentityForeign => "identity-foreign",
            Self::IdentityObjects => "identity-objects",
            Self::LabelInvalid => "label-invalid",
            Self::PeerFiltersInvalid => "peer-filters-invalid",
            Self::SourceDenied => "source-denied",
            Self::SourceUnreachable => "source-unreachable",
            Self::CustomResourcesAbsent => "custom-resources-absent",
            Self::LeaderLease => "leader-lease",
            Self::ObjectInvalid => "object-invalid",
            Self::ObjectConflict => "object-conflict",
            Self::PeerUnusable => "peer-unusable",
            Self::PeerClaimedTwice => "peer-claimed-twice",
            Self::SlicesNotWritten => "slices-not-written",
            Self::SlicesForeign => "slices-foreign",
            Self::AffinityNotKept => "affinity-not-kept",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Finding {
    /// Something that is not done.
    pub fn error(reason: Reason, object: impl fmt::Display) -> Self {
        Self::new(Severity::Error, reason, object)
    }

    /// Something that is done in another way than it seems to be meant.
    pub fn warning(reason: Reason, object: impl fmt::Display) -> Self {
        Self::new(Severity::Warning, reason, object)
    }

    /// Something worth knowing.
    pub fn info(reason: Reason, object: impl fmt::Display) -> Self {
        Self::new(Severity::Info, reason, object)
    }

    fn new(severity: Severity, reason: Reason, object: impl fmt::Display) -> Self {
        let (found, expected, consequence) = Default::default();
        Self { severity, reason, object: object.to_string(), found, expected, consequence }
    }

    /// With what was found. Long texts are cut.
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.found = cut(found.to_string());
        self
    }

    /// With what was expected.
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.expected = cut(expected.to_string());
        self
    }

    /// With what follows from it.
    pub fn so(mut self, consequence: impl fmt::Display) -> Self {
        self.consequence = cut(consequence.to_string());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.found)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        if !self.consequence.is_empty() {
            write!(f, "; {}", self.consequence)?;
        }
        Ok(())
    }
}

/// At most [`MAX_TEXT`] bytes of a text, which may hold whatever a user's file holds, on one line.
fn cut(text: String) -> String {
    let mut text = if text.contains('\n') { text.replace('\n', " ") } else { text };
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Bytes of one part of a finding.
const MAX_TEXT: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::warning(Reason::AnnotationValue, "Service shop/cart")
            .found("service.cilium.io/affinity is \"locla\"\nand more")
            .expected("local, remote or none")
            .so("treated as none");
        let line = "Service shop/cart: service.cilium.io/affinity is \"locla\" and more, \
                    expected local, remote or none; treated as none";
        assert_eq!(finding.to_string(), line);
        assert!(Finding::info(Reason::KindIgnored, "x").found("é".repeat(1000)).found.len() < 410);
    }
}
