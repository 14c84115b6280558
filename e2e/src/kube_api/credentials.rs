//! How clients reach an API server: address, certificate, token, and the kubeconfig file that says so.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Access {
    /// `http://…` or `https://…`, without a path.
    pub url: String,
    /// The authority of the server's certificate (PEM); none over plain HTTP.
    pub ca_pem: Option<String>,
    /// Bearer token.
    pub token: Option<String>,
}

/// A server certificate under an authority of its own.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The authority (PEM).
    pub ca_pem: String,
    /// The chain without the authority (PEM).
    pub chain_pem: String,
    /// The private key (PEM).
    pub key_pem: String,
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// Makes a new authority and a certificate for these addresses and for `localhost`.
    pub fn new(addresses: &[IpAddr]) -> Result<Self> {
        let ca_key = KeyPair::generate().context("make the key of the authority")?;
        let mut ca = CertificateParams::new(Vec::new()).context("authority")?;
        ca.distinguished_name.push(DnType::CommonName, "lab-kube-api authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = ca.self_signed(&ca_key).context("sign the authority")?.pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().context("make the key of the server")?;
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).context("server certificate")?;
        leaf.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        leaf.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = leaf.signed_by(&key, &issuer).context("sign the server certificate")?;
        Ok(Self {
            ca_pem,
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        })
    }

    /// The server's side of TLS.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.clone()], self.key.clone_key())
            .context("server certificate")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Access {
    /// The kubeconfig. It is JSON, which is YAML.
    pub fn kubeconfig(&self) -> String {
        let mut cluster = serde_json::json!({"server": self.url});
        if let Some(ca) = &self.ca_pem {
            cluster["certificate-authority-data"] = STANDARD.encode(ca).into();
        }
        let user = self
            .token
            .as_ref()
            .map_or_else(|| serde_json::json!({}), |token| serde_json::json!({"token": token}));
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "default"}}],
        });
        format!("{config:#}\n")
    }

    /// Writes the kubeconfig, for its owner alone: it has the token.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        write_private(path, self.kubeconfig().as_bytes())
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("create {}", path.display()))?;
    file.write_all(content).with_context(|| format!("write {}", path.display()))
}
