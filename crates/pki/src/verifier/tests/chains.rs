//! Chains made to order, good or broken in chosen ways, and what we and OpenSSL say about each.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, Issuer};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use crate::blocks::Blocks;
use crate::files::{certificates_pem, provider};
use crate::key::{KeyKind, PrivateKey, SigningRequest};
use crate::passport::Passport;
use crate::profile::{LeafRole, LeafSpec, PassportSpec, leaf_params, life, passport_params, root_params};
use crate::spiffe::ClusterUri;
use crate::trust::Trust;
use crate::verifier::fixture::{Root, now, space};
use crate::verifier::{Accepted, Expected, PeerIdentity, PeerVerifier, Side};

/// What a certificate is to say differently.
pub(super) type Change = fn(&mut CertificateParams);

/// A chain to be made: root, passport of tokyo, leaf.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) keys: [KeyKind; 3],
    pub(super) id: u32,
    pub(super) blocks: Blocks,
    pub(super) role: LeafRole,
    pub(super) root: Vec<Change>,
    pub(super) passport: Vec<Change>,
    pub(super) leaf: Vec<Change>,
    pub(super) after: Vec<fn(&mut Made)>,
}

/// A chain that was made, with everything that could be made of it.
pub(super) struct Made {
    /// What the judge accepts.
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) leaf: CertificateDer<'static>,
    /// What is shown after the leaf.
    pub(super) sent: Vec<CertificateDer<'static>>,
    pub(super) passport: CertificateDer<'static>,
    pub(super) keys: [PrivateKey; 3],
    /// The name that is dialled; none if the leaf is a client's.
    pub(super) dialled: Option<&'static str>,
    /// Signed documents that lie beside what is accepted.
    pub(super) deny_lists: String,
    pub(super) statements: String,
}

/// What our own verifier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    /// The chain is sound, our rules refuse it.
    Refused(String),
    /// The handshake fails.
    Failed(String),
}

impl Plan {
    pub(super) fn of(role: LeafRole) -> Self {
        Self {
            keys: [KeyKind::P256; 3],
            id: 2,
            blocks: space(&["10.2.0.0/16", "fd00:10:2::/48"]),
            role,
            root: Vec::new(),
            passport: Vec::new(),
            leaf: Vec::new(),
            after: Vec::new(),
        }
    }

    pub(super) fn make(&self) -> Made {
        let keys = self.keys.map(|kind| PrivateKey::generate(kind).expect("a key"));
        let [root_key, passport_key, leaf_key] = &keys;
        let mut params = root_params(root_key, now(), life::ROOT).expect("parameters");
        self.root.iter().for_each(|change| change(&mut params));
        let root = params.self_signed(root_key.pair()).expect("signed").der().clone();
        let root_issuer = Issuer::from_params(&params, root_key.pair());

        let spec = self.spec();
        let mut params = passport_params(&spec, now()).expect("parameters");
        self.passport.iter().for_each(|change| change(&mut params));
        let passport = params.signed_by(public(passport_key).public_key(), &root_issuer);
        let passport = passport.expect("signed").der().clone();
        let passport_issuer = Issuer::from_params(&params, passport_key.pair());

        let leaf_spec = LeafSpec::new(self.role, "n1".parse().expect("a node"));
        let mut params = leaf_params(&self.meant(&spec), &leaf_spec, now()).expect("parameters");
        self.leaf.iter().for_each(|change| change(&mut params));
        let leaf = params.signed_by(public(leaf_key).public_key(), &passport_issuer);
        let mut made = Made {
            trusted: vec![root],
            leaf: leaf.expect("signed").der().clone(),
            sent: vec![passport.clone()],
            passport,
            keys,
            dialled: (self.role == LeafRole::Hub).then_some("tokyo.mesh.cilium.io"),
            deny_lists: String::new(),
            statements: String::new(),
        };
        self.after.iter().for_each(|change| change(&mut made));
        made
    }

    fn spec(&self) -> PassportSpec {
        PassportSpec {
            uri: ClusterUri {
                trust_domain: "mesh.example".parse().expect("a trust domain"),
                cluster: "tokyo".parse().expect("a name"),
                id: self.id.try_into().expect("an id"),
            },
            blocks: self.blocks.clone(),
            dns_names: vec!["hub.tokyo.example".to_owned()],
            addresses: vec!["192.0.2.2".parse().expect("an address")],
            life: life::PASSPORT,
        }
    }

    /// The passport before it was changed: what a leaf is to say is taken from it.
    fn meant(&self, spec: &PassportSpec) -> Passport {
        let root = PrivateKey::generate(KeyKind::P256).expect("a key");
        let params = root_params(&root, now(), life::ROOT).expect("parameters");
        let issuer = Issuer::from_params(&params, root.pair());
        let params = passport_params(spec, now()).expect("parameters");
        let der = params.signed_by(public(&root).public_key(), &issuer).expect("signed").der().clone();
        Passport::read(&der).expect("a passport")
    }
}

impl Made {
    /// A certificate of the root for a key, with parameters of its own.
    pub(super) fn by_root(&self, params: &CertificateParams, key: &PrivateKey) -> CertificateDer<'static> {
        self.by(&self.trusted[0], &self.keys[0], params, key)
    }

    /// A certificate of the passport for a key, with parameters of its own.
    pub(super) fn by_passport(
        &self,
        params: &CertificateParams,
        key: &PrivateKey,
    ) -> CertificateDer<'static> {
        self.by(&self.passport, &self.keys[1], params, key)
    }

    /// A certificate of another issuer, such as the leaf.
    pub(super) fn by(
        &self,
        issuer: &CertificateDer<'_>,
        issuer_key: &PrivateKey,
        params: &CertificateParams,
        key: &PrivateKey,
    ) -> CertificateDer<'static> {
        let issuer = Issuer::from_ca_cert_der(issuer, issuer_key.pair()).expect("an issuer");
        params.signed_by(public(key).public_key(), &issuer).expect("signed").der().clone()
    }

    /// What the hub of paris says about a client, or an agent of paris about the hub of tokyo.
    pub(super) fn our_verdict(&self) -> Verdict {
        match self.verified() {
            Ok(identity) => match identity.refusal() {
                None => Verdict::Accepted,
                Some(refusal) => Verdict::Refused(refusal.to_string()),
            },
            Err(sentence) => Verdict::Failed(sentence),
        }
    }

    /// What is known of the peer, which must be accepted.
    pub(super) fn accepted(&self) -> Accepted {
        let identity = self.verified().expect("a sound chain");
        identity.accepted().unwrap_or_else(|| panic!("accepted, not {identity}")).clone()
    }

    fn verified(&self) -> Result<Arc<PeerIdentity>, String> {
        let trust = Trust::new(&self.trusted, &[], Some(paris())).map_err(|error| error.to_string())?;
        let trust = trust.with_statements(self.statements.as_bytes()).map_err(|error| error.to_string())?;
        let trust = trust.with_deny_lists(self.deny_lists.as_bytes()).map_err(|error| error.to_string())?;
        let side = match self.dialled {
            Some(_) => Side::Server(Expected::Peer("tokyo".parse().expect("a name"))),
            None => Side::Clients,
        };
        let verifier = PeerVerifier::new(Arc::new(trust), side, provider());
        let outcome = match self.dialled {
            Some(name) => {
                let name = name.try_into().expect("a name");
                verifier.verify_server_cert(&self.leaf, &self.sent, &name, &[], UnixTime::now()).map(drop)
            }
            None => verifier.verify_client_cert(&self.leaf, &self.sent, UnixTime::now()).map(drop),
        };
        match (outcome, verifier.identity(), verifier.failure()) {
            (Ok(()), Some(identity), None) => Ok(identity),
            (Err(_), None, Some(sentence)) => Err(sentence.to_owned()),
            other => panic!("an outcome with its reason, not {other:?}"),
        }
    }

    /// The error numbers of `openssl verify`, of the leaf for its purpose and of the passport; none if both are good. OpenSSL
    /// holds address blocks against the issuer's only where the certificate in question has some, so the leaf is not enough.
    pub(super) fn openssl_errors(&self) -> Vec<u32> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("trusted"), certificates_pem(&self.trusted)).expect("written");
        std::fs::write(path("sent"), certificates_pem(&self.sent)).expect("written");
        std::fs::write(path("leaf"), certificates_pem([&self.leaf])).expect("written");
        std::fs::write(path("passport"), certificates_pem([&self.passport])).expect("written");
        let mut of_leaf = vec!["-purpose", if self.dialled.is_some() { "sslserver" } else { "sslclient" }];
        of_leaf.extend(self.dialled.iter().flat_map(|name| ["-verify_hostname", name]));
        let mut errors = verify(dir.path(), !self.sent.is_empty(), &of_leaf, "leaf");
        errors.extend(verify(dir.path(), false, &[], "passport"));
        errors.sort_unstable();
        errors.dedup();
        errors
    }
}

fn verify(dir: &Path, with_sent: bool, more: &[&str], what: &str) -> Vec<u32> {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(["verify", "-no-CApath", "-no-CAstore", "-CAfile", "trusted"]).args(more);
    if with_sent {
        command.args(["-untrusted", "sent"]);
    }
    let output = command.arg(what).output().expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    let mut errors: Vec<u32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("error ")?.split(' ').next()?.parse().ok())
        .collect();
    if errors.is_empty() && !output.status.success() {
        // Not even readable for it.
        errors.push(0);
    }
    errors
}

/// The request for a key.
pub(super) fn public(key: &PrivateKey) -> SigningRequest {
    SigningRequest::from_pem(&key.request().expect("a request")).expect("sound")
}

/// The judge's own passport: paris, id 1.
fn paris() -> Arc<Passport> {
    static PARIS: OnceLock<Arc<Passport>> = OnceLock::new();
    let make = || {
        let der = Root::new(KeyKind::P256).member("paris", 1).der.clone();
        Arc::new(Passport::read(&der).expect("a passport"))
    };
    Arc::clone(PARIS.get_or_init(make))
}
