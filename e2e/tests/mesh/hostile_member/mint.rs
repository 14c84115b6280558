//! Certificates that our own authorities refuse to issue: what the holder of a passport's key can sign all the same.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A member of the mesh with the key of its passport.
pub(crate) struct Member {
    passport: String,
    key: String,
    roots: String,
}

/// What a minted leaf says. The default is what an honest client of berlin has.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    /// Common names, in order.
    pub(crate) names: Vec<&'static str>,
    /// URIs among the alternative names.
    pub(crate) uris: Vec<&'static str>,
    /// DNS names among them.
    pub(crate) dns: Vec<&'static str>,
    /// What it may be used for.
    pub(crate) usage: ExtendedKeyUsagePurpose,
    /// Seconds from now from which it is valid.
    pub(crate) from: i64,
    /// Seconds from now until which it is valid.
    pub(crate) until: i64,
    /// Whether an authority of the member's own stands between passport and leaf, under the name of paris's passport.
    pub(crate) below_an_authority: bool,
}

impl Default for Forged {
    fn default() -> Self {
        Self {
            names: vec!["remote-berlin"],
            uris: vec!["spiffe://mesh.example/cluster/berlin/node/n1/remote"],
            dns: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            from: -300,
            until: 86_400,
            below_an_authority: false,
        }
    }
}

impl Member {
    /// Reads `passport.crt`, `passport.key` and `ca.crt` of an enrolled cluster's directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let read = |file: &str| {
            fs::read_to_string(dir.join(file)).with_context(|| format!("read {}", dir.join(file).display()))
        };
        Ok(Self { passport: read("passport.crt")?, key: read("passport.key")?, roots: read("ca.crt")? })
    }

    /// Signs a leaf and writes `tls.crt` (with the chain below the root), `tls.key` and `ca.crt`.
    pub(crate) fn mint(&self, forged: &Forged, out: &Path) -> Result<()> {
        let key = KeyPair::from_pem(&self.key).context("the passport's key")?;
        let passport = Issuer::from_ca_cert_pem(&self.passport, key).context("the passport")?;
        let leaf_key = KeyPair::generate().context("a key")?;
        let params = forged.params()?;
        let chain = if forged.below_an_authority {
            let mut between = CertificateParams::default();
            between.distinguished_name = DistinguishedName::new();
            between.distinguished_name.push(DnType::CommonName, "isthmus cluster paris");
            between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            between.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let between_key = KeyPair::generate().context("a key")?;
            let certificate = between.signed_by(&between_key, &passport).context("sign an authority")?;
            let leaf = params.signed_by(&leaf_key, &Issuer::from_params(&between, &between_key));
            format!("{}{}{}", leaf.context("sign a leaf")?.pem(), certificate.pem(), self.passport)
        } else {
            let leaf = params.signed_by(&leaf_key, &passport).context("sign a leaf")?;
            format!("{}{}", leaf.pem(), self.passport)
        };
        write(out, &chain, &leaf_key, &self.roots)
    }

    /// Writes a leaf that is signed with its own key.
    pub(crate) fn mint_self_signed(&self, forged: &Forged, out: &Path) -> Result<()> {
        let key = KeyPair::generate().context("a key")?;
        let leaf = forged.params()?.self_signed(&key).context("sign a leaf")?;
        write(out, &leaf.pem(), &key, &self.roots)
    }
}

impl Forged {
    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (n, name) in self.names.iter().enumerate() {
            // A name has each kind once, unless it is given by its number (2.5.4.3, the common name).
            let kind = if n == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
            params.distinguished_name.push(kind, *name);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![self.usage.clone()];
        for uri in &self.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().context("a URI")?));
        }
        for name in &self.dns {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().context("a DNS name")?));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
        let moment = |seconds: i64| {
            let at = now.as_secs().saturating_add_signed(seconds);
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at)
        };
        (params.not_before, params.not_after) = (moment(self.from), moment(self.until));
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn write(out: &Path, chain: &str, key: &KeyPair, roots: &str) -> Result<()> {
    pki::durable::private_dir(out).context("create a directory")?;
    for (file, text) in [("tls.crt", chain), ("tls.key", &key.serialize_pem()), ("ca.crt", roots)] {
        fs::write(out.join(file), text).with_context(|| format!("write {file}"))?;
    }
    Ok(())
}
