//! Reading certificates of any origin: what rules and log lines need from one, nothing assumed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::blocks::{Blocks, InvalidBlocks};
use crate::fingerprint::{Fingerprint, hex};

/// Why bytes are no certificate that we can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not one DER certificate.
    #[error("not a DER certificate")]
    Der,
    /// An extension is malformed or there twice.
    #[error("its {extension} is malformed or there twice")]
    Extension {
        /// Which.
        extension: &'static str,
    },
    /// The address blocks cannot be used.
    #[error(transparent)]
    Blocks(#[from] InvalidBlocks),
}

/// Holds the alternative names of a certificate, by kind.
#[derive(Debug, Default)]
pub(crate) struct AlternativeNames<'a> {
    pub(crate) dns: Vec<&'a str>,
    pub(crate) uris: Vec<&'a str>,
    pub(crate) addresses: Vec<&'a [u8]>,
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Unreadable> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Unreadable::Der),
    }
}

/// The fingerprint of a certificate's key.
pub(crate) fn spki(der: &[u8]) -> Result<Fingerprint, Unreadable> {
    Ok(Fingerprint::of(parse(der)?.public_key().raw))
}

/// The alternative names; none if the extension is absent.
pub(crate) fn alternative_names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<AlternativeNames<'a>, Unreadable> {
    let found = certificate.subject_alternative_name();
    let found = found.map_err(|_error| Unreadable::Extension { extension: "subject alternative name" })?;
    let mut names = AlternativeNames::default();
    for name in found.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.dns.push(name),
            GeneralName::URI(uri) => names.uris.push(uri),
            GeneralName::IPAddress(bytes) => names.addresses.push(bytes),
            _ => {}
        }
    }
    Ok(names)
}

/// The RFC 3779 blocks, if there are any. Fails if the extension is there twice or is not canonical.
pub(crate) fn blocks(certificate: &X509Certificate<'_>) -> Result<Option<Blocks>, Unreadable> {
    let mut found = certificate.extensions().iter().filter(|extension| extension.oid == IP_ADDR_BLOCKS);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(extension), None) => Ok(Some(Blocks::from_der(extension.value)?)),
        (Some(_), Some(_)) => Err(Unreadable::Extension { extension: "IP address blocks extension" }),
    }
}

/// The subject's common name, if it has exactly one.
pub(crate) fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok(),
        _ => None,
    }
}

/// How a certificate is named in log lines: subject, issuer and serial, without anything that could break a line.
pub(crate) fn describe(der: &[u8]) -> String {
    match parse(der) {
        Ok(certificate) => format!(
            "certificate {} issued by {}, serial {}",
            name_text(certificate.subject()),
            name_text(certificate.issuer()),
            hex(certificate.raw_serial().get(..20).unwrap_or_else(|| certificate.raw_serial())),
        ),
        Err(_) => format!("certificate of {} bytes that is not readable", der.len()),
    }
}

/// A name as text for people: bounded, printable.
pub(crate) fn name_text(name: &X509Name<'_>) -> String {
    printable(&name.to_string())
}

/// At most 160 characters, control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .take(160)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

pub(crate) fn time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// A point in time for people, in UTC.
pub(crate) fn time_text(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

pub(crate) const IP_ADDR_BLOCKS: Oid<'static> = oid!(1.3.6.1.5.5.7.1.7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_peer_sends_breaks_a_log_line() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(1000)).len(), 160);
        assert_eq!(describe(b"junk"), "certificate of 4 bytes that is not readable");
    }
}
