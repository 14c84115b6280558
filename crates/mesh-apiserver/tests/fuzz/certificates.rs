//! Certificates of a peer, before anybody has vouched for them.

use pki::Passport;
use pki::trust::Trust;
use rustls::pki_types::CertificateDer;

use crate::corpus;

#[test]
fn any_certificate_is_read_or_refused() {
    corpus::run("certificates", |input| {
        let der = CertificateDer::from(input.bytes.clone());
        let read = Passport::read(&der);
        let sound = input.is_changed || read.is_ok() == input.name.starts_with("passport");
        proptest::prop_assert!(sound, "{read:?}");
        // Whoever is no passport is no root of passports either way; neither may fall over.
        drop(Trust::new(std::slice::from_ref(&der), &[], None));
        drop(Trust::new(&[], &[der], read.ok().map(Into::into)));
        Ok(())
    });
}
