//! A mesh for tests: roots, passports, and leaves that may break every rule.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use tokio::io::DuplexStream;

use super::{Expected, PeerIdentity};
use crate::blocks::Blocks;
use crate::client::{self, ConnectError, Connector};
use crate::files::{Credentials, Files, LiveCredentials, certificates_pem};
use crate::key::{KeyKind, PrivateKey, SigningRequest};
use crate::passport::Passport;
use crate::profile::{LeafRole, LeafSpec, PassportSpec, issue_root, leaf_params, life, passport_params};
use crate::server::{self, AcceptError, Acceptor};
use crate::spiffe::ClusterUri;

pub(super) type Accepting = Result<(server::TlsStream<DuplexStream>, Arc<PeerIdentity>), AcceptError>;
pub(super) type Connecting = Result<(client::TlsStream<DuplexStream>, Arc<PeerIdentity>), ConnectError>;

pub(super) struct Root {
    pub(super) der: CertificateDer<'static>,
    key: PrivateKey,
    kind: KeyKind,
}

pub(super) struct Member {
    pub(super) der: CertificateDer<'static>,
    pub(super) key: PrivateKey,
    spec: PassportSpec,
    root: CertificateDer<'static>,
    kind: KeyKind,
}

/// A chain and its key, ready to be shown.
pub(super) struct Holder {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKey,
    root: CertificateDer<'static>,
}

impl Root {
    pub(super) fn new(kind: KeyKind) -> Self {
        Self::valid_for(kind, now(), life::ROOT)
    }

    pub(super) fn valid_for(kind: KeyKind, from: SystemTime, life: Duration) -> Self {
        let key = PrivateKey::generate(kind).expect("a key");
        Self { der: issue_root(&key, from, life).expect("a root"), key, kind }
    }

    /// An authority with parameters that are none of ours.
    pub(super) fn foreign(name: &str) -> Self {
        let mut params = CertificateParams::default();
        set_common_name(&mut params, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let der = params.self_signed(key.pair()).expect("signed").der().clone();
        Self { der, key, kind: KeyKind::P256 }
    }

    /// A client's leaf directly below, as stock authorities issue them.
    pub(super) fn leaf(&self, common_name: &str) -> Holder {
        let mut params = CertificateParams::default();
        set_common_name(&mut params, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = PrivateKey::generate(self.kind).expect("a key");
        let issuer = Issuer::from_ca_cert_der(&self.der, self.key.pair()).expect("an issuer");
        let leaf = params.signed_by(request(&key).public_key(), &issuer).expect("signed").der().clone();
        Holder { chain: vec![leaf], key, root: self.der.clone() }
    }

    pub(super) fn member(&self, cluster: &str, id: u32) -> Member {
        self.member_with(cluster, id, now(), |_| {})
    }

    /// A passport whose parameters were changed at will before signing.
    pub(super) fn member_with(
        &self,
        cluster: &str,
        id: u32,
        issued: SystemTime,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Member {
        let spec = PassportSpec {
            uri: ClusterUri {
                trust_domain: "mesh.example".parse().expect("a trust domain"),
                cluster: cluster.parse().expect("a name"),
                id: id.try_into().expect("an id"),
            },
            blocks: space(&[&format!("10.{id}.0.0/16"), &format!("fd00:10:{id:x}::/48")]),
            dns_names: vec![format!("hub.{cluster}.example")],
            addresses: vec![IpAddr::from([192, 0, 2, u8::try_from(id).unwrap_or(255)])],
            life: life::PASSPORT,
        };
        let mut params = passport_params(&spec, issued).expect("parameters");
        change(&mut params);
        let key = PrivateKey::generate(self.kind).expect("a key");
        let issuer = Issuer::from_ca_cert_der(&self.der, self.key.pair()).expect("an issuer");
        let der = params.signed_by(request(&key).public_key(), &issuer).expect("signed").der().clone();
        Member { der, key, spec, root: self.der.clone(), kind: self.kind }
    }
}

impl Member {
    pub(super) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub(super) fn holder(&self, role: LeafRole) -> Holder {
        self.holder_with(role, now(), |_| {})
    }

    /// A leaf whose parameters were changed at will before signing.
    pub(super) fn holder_with(
        &self,
        role: LeafRole,
        issued: SystemTime,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Holder {
        let spec = LeafSpec::new(role, "n1".parse().expect("a node"));
        let mut params = leaf_params(&self.passport(), &spec, issued).expect("parameters");
        change(&mut params);
        let key = PrivateKey::generate(self.kind).expect("a key");
        let issuer = Issuer::from_ca_cert_der(&self.der, self.key.pair()).expect("an issuer");
        let leaf = params.signed_by(request(&key).public_key(), &issuer).expect("signed").der().clone();
        Holder { chain: vec![leaf, self.der.clone()], key, root: self.root.clone() }
    }

    /// The passport as it was meant, even if the certificate was changed to be none.
    fn passport(&self) -> Passport {
        Passport::read(&self.der).unwrap_or_else(|_| Passport {
            uri: self.spec.uri.clone(),
            blocks: self.spec.blocks.clone(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            spki: self.key.spki(),
            fingerprint: self.key.spki(),
            not_before: now(),
            not_after: now() + life::PASSPORT,
            der: self.der.clone(),
        })
    }
}

impl Holder {
    /// Credentials, read from files as in a daemon, that accept the own root.
    pub(super) fn credentials(&self) -> LiveCredentials {
        self.credentials_accepting(std::slice::from_ref(&self.root), &[])
    }

    pub(super) fn credentials_accepting(
        &self,
        roots: &[CertificateDer<'static>],
        unattested: &[CertificateDer<'static>],
    ) -> LiveCredentials {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = Files::in_dir(dir.path());
        std::fs::write(&files.certificate, certificates_pem(&self.chain)).expect("written");
        std::fs::write(&files.authorities, certificates_pem(roots)).expect("written");
        self.key.write(&files.key).expect("written");
        if !unattested.is_empty() {
            let path = dir.path().join("unattested.crt");
            std::fs::write(&path, certificates_pem(unattested)).expect("written");
            files.unattested = Some(path);
        }
        LiveCredentials::fixed(Credentials::from_files(&files).expect("credentials"))
    }

    /// A leaf signed with this leaf's key, as if it were an authority.
    pub(super) fn mint_below(&self) -> Self {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let issuer = Issuer::from_ca_cert_der(&self.chain[0], self.key.pair()).expect("an issuer");
        let mut params = CertificateParams::default();
        set_common_name(&mut params, "remote-tokyo");
        let leaf = params.signed_by(request(&key).public_key(), &issuer).expect("signed").der().clone();
        let chain = [vec![leaf], self.chain.clone()].concat();
        Self { chain, key, root: self.root.clone() }
    }
}

/// Both ends of one connection through memory, each with its own result.
pub(super) async fn connect(
    server: &LiveCredentials,
    client: &LiveCredentials,
    expected: Expected,
    server_name: &str,
) -> (Accepting, Connecting) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (acceptor, connector) = (Acceptor::new(server.clone()), Connector::new(client.clone(), expected));
    tokio::join!(acceptor.accept(far), connector.connect(server_name, near))
}

pub(super) fn set_common_name(params: &mut CertificateParams, name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

pub(super) fn set_uri(params: &mut CertificateParams, uri: &str) {
    params.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_)));
    params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
}

pub(super) fn space(texts: &[&str]) -> Blocks {
    texts.iter().map(|text| topology::block::parse_block(text).expect("a block")).collect()
}

pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

pub(super) fn ago(days: u64) -> SystemTime {
    now() - Duration::from_secs(days * 86_400)
}

fn request(key: &PrivateKey) -> SigningRequest {
    SigningRequest::from_pem(&key.request().expect("a request")).expect("sound")
}
