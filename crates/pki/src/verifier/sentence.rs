//! webpki's errors, as alerts for the peer and as sentences for our own log.

use rustls::CertificateError;

use super::handshake::Side;
use crate::certificate::time_text;
use crate::trust::Trust;

/// The nearest certificate error of rustls, which decides the alert (RFC 8446, section 6.2).
pub(super) fn alert(error: &webpki::Error) -> CertificateError {
    match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { .. } | webpki::Error::InvalidCertValidity => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertNotValidForName(_) | webpki::Error::NameConstraintViolation => {
            CertificateError::NotValidForName
        }
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::CaUsedAsEndEntity => {
            CertificateError::InvalidPurpose
        }
        other => CertificateError::Other(rustls::OtherError(std::sync::Arc::new(other.clone()))),
    }
}

/// What is wrong, for the log.
pub(super) fn sentence(error: &webpki::Error, trust: &Trust, side: &Side) -> String {
    match error {
        webpki::Error::UnknownIssuer => format!(
            "no path to an accepted root; accepted: {}; a chain is the leaf, then its passport",
            trust.subjects().join(", ")
        ),
        webpki::Error::CertExpired { time, not_after } => {
            format!("a certificate of its chain ended at {}, now {}", unix(*not_after), unix(*time))
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            format!("a certificate of its chain starts at {}, now {}", unix(*not_before), unix(*time))
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            let wanted = if matches!(side, Side::Server(_)) { "serverAuth" } else { "clientAuth" };
            format!("its extended key usage does not list {wanted}")
        }
        webpki::Error::CaUsedAsEndEntity => "it is a certificate authority, expected a leaf".to_owned(),
        webpki::Error::EndEntityUsedAsCa => {
            "it was signed by a leaf, expected a passport as issuer".to_owned()
        }
        webpki::Error::PathLenConstraintViolated => {
            "its chain has an authority below a passport, expected a leaf signed by the passport".to_owned()
        }
        webpki::Error::NameConstraintViolation => {
            "it has a name or address that its passport does not permit".to_owned()
        }
        webpki::Error::InvalidSignatureForPublicKey => {
            "a signature of its chain does not fit: an authority of the same name has another key".to_owned()
        }
        webpki::Error::CertNotValidForName(context) => format!(
            "it is not valid for {}, it names {}",
            context.expected.to_str(),
            context.presented.iter().take(8).cloned().collect::<Vec<_>>().join(", ")
        ),
        other => other.to_string(),
    }
}

fn unix(time: rustls::pki_types::UnixTime) -> String {
    time_text(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs()))
}
