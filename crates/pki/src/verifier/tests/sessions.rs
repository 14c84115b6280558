//! Connections as such: without a certificate, without end, resumed, of an older TLS.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use crate::client::{ConnectError, Connector};
use crate::files::provider;
use crate::key::KeyKind;
use crate::profile::LeafRole;
use crate::server::{AcceptError, Acceptor};
use crate::verifier::Expected;
use crate::verifier::fixture::{Holder, Root};

/// rustls as anyone would use it: also shows that its own verifier accepts our hub's chain.
fn plain_client(root: &Root, with: Option<&Holder>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.der.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let config = match with {
        None => config.with_no_client_auth(),
        Some(holder) => {
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(holder.key.pair().serialize_der());
            config.with_client_auth_cert(holder.chain.clone(), key.into()).expect("a pair")
        }
    };
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_client_without_certificate_is_told_apart() {
    let root = Root::new(KeyKind::P256);
    let acceptor = Acceptor::new(root.member("paris", 1).holder(LeafRole::Hub).credentials());
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = "paris.mesh.cilium.io".try_into().expect("a name");
    let (accepting, _connecting) =
        tokio::join!(acceptor.accept(far), plain_client(&root, None).connect(name, near));
    let error = accepting.map(|(_, identity)| identity).expect_err("refused");
    assert!(matches!(error, AcceptError::NoCertificate { .. }), "{error:?}");
    assert!(
        error.to_string().contains(
            "client presented no certificate; expected a leaf and its passport under one of: CN=isthmus root"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn every_connection_is_verified_anew() {
    let root = Root::new(KeyKind::P256);
    let acceptor = Acceptor::new(root.member("paris", 1).holder(LeafRole::Hub).credentials());
    let client = plain_client(&root, Some(&root.member("tokyo", 2).holder(LeafRole::Remote)));
    for _ in 0..3 {
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = "paris.mesh.cilium.io".try_into().expect("a name");
        let (accepting, connecting) = tokio::join!(acceptor.accept(far), client.connect(name, near));
        let ((mut server, identity), mut client) =
            (accepting.expect("accepted"), connecting.expect("connected"));
        assert!(identity.accepted().is_some(), "{identity}");
        assert_eq!(server.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        // Read something, so that a ticket, were one sent, would have reached the client.
        server.write_all(b"x").await.expect("written");
        server.flush().await.expect("flushed");
        assert_eq!(client.read_u8().await.expect("read"), b'x');
    }
}

#[tokio::test(start_paused = true)]
async fn silent_peers_are_dropped() {
    let root = Root::new(KeyKind::P256);
    let paris = root.member("paris", 1);
    let (_silent, far) = tokio::io::duplex(1 << 16);
    let acceptor = Acceptor::new(paris.holder(LeafRole::Hub).credentials());
    let error = acceptor.accept(far).await.map(|(_, identity)| identity).expect_err("too slow");
    assert!(matches!(error, AcceptError::Timeout { after } if after == Duration::from_secs(10)), "{error:?}");
    let (_silent, far) = tokio::io::duplex(1 << 16);
    let connector = Connector::new(paris.holder(LeafRole::Local).credentials(), Expected::OwnHub);
    let error = connector
        .connect("paris.mesh.cilium.io", far)
        .await
        .map(|(_, identity)| identity)
        .expect_err("too slow");
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn noise_is_an_error_and_no_panic() {
    let root = Root::new(KeyKind::P256);
    let acceptor = Acceptor::new(root.member("paris", 1).holder(LeafRole::Hub).credentials());
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], &[]] {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        near.write_all(noise).await.expect("written");
        near.shutdown().await.expect("closed");
        let error = acceptor.accept(far).await.map(|(_, identity)| identity).expect_err("no TLS");
        assert!(matches!(error, AcceptError::Tls(_) | AcceptError::Io(_)), "{error:?}");
    }
}

/// With OpenSSL as the client: TLS 1.2 is refused, TLS 1.3 with our chain is accepted.
#[tokio::test]
async fn openssl_speaks_tls13_to_us_and_nothing_older() {
    let root = Root::new(KeyKind::P256);
    let acceptor = Acceptor::new(root.member("paris", 1).holder(LeafRole::Hub).credentials());
    let holder = root.member("tokyo", 2).holder(LeafRole::Remote);
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("leaf"), crate::files::certificates_pem(&holder.chain[..1])).expect("written");
    std::fs::write(path("chain"), crate::files::certificates_pem(&holder.chain[1..])).expect("written");
    std::fs::write(path("root"), crate::files::certificates_pem([&root.der])).expect("written");
    holder.key.write(path("key").as_ref()).expect("written");
    for version in ["-tls1_2", "-tls1_3"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let mut openssl = tokio::process::Command::new("openssl")
            .args(["s_client", "-connect", &address, version, "-servername", "paris.mesh.cilium.io"])
            .args([
                "-verify_return_error",
                "-verify_hostname",
                "paris.mesh.cilium.io",
                "-CAfile",
                &path("root"),
            ])
            .args(["-cert", &path("leaf"), "-key", &path("key"), "-cert_chain", &path("chain")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is installed");
        let (tcp, _) = listener.accept().await.expect("a connection");
        let outcome = acceptor.accept(tcp).await.map(|(_, identity)| identity);
        // Input at its end lets s_client go.
        drop(openssl.stdin.take());
        let said = tokio::time::timeout(Duration::from_secs(10), openssl.wait_with_output()).await;
        let said = said.expect("s_client ends").expect("its output");
        match (version, outcome) {
            ("-tls1_2", Err(AcceptError::OldTls)) => assert!(!said.status.success()),
            ("-tls1_3", Ok(identity)) => assert!(identity.accepted().is_some(), "{identity}"),
            (version, other) => panic!("{version}: {other:?}\n{}", String::from_utf8_lossy(&said.stderr)),
        }
    }
}
