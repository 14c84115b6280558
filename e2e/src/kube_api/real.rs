//! A real kube-apiserver with an etcd of its own, when a test is to be checked against one.
//!
//! One user with a token who may do everything, RBAC for all others, no controllers: a deleted namespace stays
//! `Terminating`, definitions take a moment until they are served, no service account is made in a new namespace.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rcgen::KeyPair;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::credentials::{Access, ServerIdentity, write_private};
use super::names;
use crate::wait::eventually;

/// The variable with the path of a kube-apiserver.
pub const KUBE_APISERVER_VARIABLE: &str = "E2E_KUBE_APISERVER";
/// The variable with the path of an etcd.
pub const ETCD_VARIABLE: &str = "E2E_ETCD";

/// How long both may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a log that an error shows.
const LOG_TAIL: usize = 4096;

/// The programs of a real API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealPrograms {
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// etcd.
    pub etcd: PathBuf,
}

/// A real API server; both processes end when it is dropped.
#[derive(Debug)]
pub struct RealApi {
    access: Access,
    // In this order: the API server goes before its store.
    _kube_apiserver: Child,
    _etcd: Child,
}

impl RealPrograms {
    /// What the environment names; `None` if it names neither, an error if it names one of them.
    pub fn from_env() -> Result<Option<Self>> {
        let path = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        match (path(KUBE_APISERVER_VARIABLE), path(ETCD_VARIABLE)) {
            (Some(kube_apiserver), Some(etcd)) => Ok(Some(Self { kube_apiserver, etcd })),
            (None, None) => Ok(None),
            _ => bail!("{KUBE_APISERVER_VARIABLE} and {ETCD_VARIABLE} must both be set, or neither"),
        }
    }
}

impl RealApi {
    /// Starts both with everything they need in this directory. Fails with the end of the log of the one that does not
    /// answer.
    pub async fn start(programs: &RealPrograms, dir: &Path) -> Result<Self> {
        let [client, peer, secure] = free_ports().await?;
        let etcd_url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let etcd_args = [
            format!("--data-dir={}", dir.join("etcd").display()),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        let etcd_log = dir.join("etcd.log");
        let mut etcd = start(&programs.etcd, &etcd_args, &etcd_log)?;
        let etcd_address = SocketAddr::from((Ipv4Addr::LOCALHOST, client));
        let listening =
            || async move { TcpStream::connect(etcd_address).await.map(drop).context("connect to etcd") };
        answers(&mut etcd, &etcd_log, eventually("etcd listens", START_TIMEOUT, listening)).await?;

        let token = names::token();
        let identity = ServerIdentity::new(&[Ipv4Addr::LOCALHOST.into()])?;
        let accounts = KeyPair::generate().context("make the key of service accounts")?;
        let file = |name: &str, content: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            write_private(&path, content.as_bytes())?;
            Ok(path)
        };
        let tokens = file("tokens.csv", &format!("{token},lab,lab,\"system:masters\"\n"))?;
        let certificate = file("server.crt", &identity.chain_pem)?;
        let key = file("server.key", &identity.key_pem)?;
        let accounts_key = file("service-accounts.key", &accounts.serialize_pem())?;
        let accounts_public = file("service-accounts.pub", &accounts.public_key_pem())?;
        let args = [
            format!("--etcd-servers={etcd_url}"),
            format!("--secure-port={secure}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", dir.display()),
            format!("--tls-cert-file={}", certificate.display()),
            format!("--tls-private-key-file={}", key.display()),
            format!("--token-auth-file={}", tokens.display()),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", accounts_public.display()),
            format!("--service-account-signing-key-file={}", accounts_key.display()),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let log = dir.join("kube-apiserver.log");
        let mut kube_apiserver = start(&programs.kube_apiserver, &args, &log)?;
        let url = format!("https://127.0.0.1:{secure}");
        let access = Access { url, ca_pem: Some(identity.ca_pem.clone()), token: Some(token) };
        let ready = eventually("kube-apiserver is ready", START_TIMEOUT, || is_ready(&access, secure));
        answers(&mut kube_apiserver, &log, ready).await?;
        Ok(Self { access, _kube_apiserver: kube_apiserver, _etcd: etcd })
    }

    /// How clients reach it.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

/// Asks `/readyz` over TLS.
async fn is_ready(access: &Access, port: u16) -> Result<()> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::AsyncWriteExt;

    let ca = access.ca_pem.as_deref().unwrap_or_default();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).context("read the authority")?)
        .context("authority")?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.context("connect")?;
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
        .connect(name, stream)
        .await
        .context("TLS handshake")?;
    let token = access.token.as_deref().unwrap_or_default();
    let request = format!("GET /readyz HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("ask")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.context("read the status line")?;
    let head = String::from_utf8_lossy(&head);
    if head.ends_with("200") { Ok(()) } else { bail!("/readyz answers {head}") }
}

fn start(program: &Path, args: &[String], log: &Path) -> Result<Child> {
    let file = std::fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = file.try_clone().context("second handle of the log")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(file).stderr(errors).kill_on_drop(true);
    command.spawn().with_context(|| format!("start {}", program.display()))
}

/// Waits until a program answers. Fails with the end of its log, at once if it ends.
async fn answers(child: &mut Child, log: &Path, ready: impl Future<Output = Result<()>>) -> Result<()> {
    // Both are over after this, whichever comes first.
    let error = tokio::select! {
        ready = ready => match ready {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        ended = child.wait() => anyhow!("it ended: {}", ended.context("wait for it")?),
    };
    let text = std::fs::read(log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL)..]).into_owned();
    Err(error.context(format!("the end of {}:\n{tail}", log.display())))
}

/// Three ports of 127.0.0.1 that were free a moment ago.
async fn free_ports() -> Result<[u16; 3]> {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("find a free port")?);
    }
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().context("address of a listener")?.port();
    }
    Ok(ports)
}
