//! `bench pki`: what a connection costs in certificates: whole mutual handshakes, as hubs and agents make them.
//!
//! Both ends are threads of this process, joined by memory: no network, no daemon. What one end takes is its thread's time on a
//! processor, from `/proc/thread-self/schedstat`, so that a shared machine disturbs little.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use pki::authority::{EnrolRequest, Subject};
use pki::blocks::Blocks;
use pki::client::Connector;
use pki::cluster_authority::{ClusterAuthority, PASSPORT_KEY};
use pki::key::{KeyKind, PrivateKey, SigningRequest};
use pki::server::Acceptor;
use pki::verifier::Expected;
use pki::{Authority, Credentials, LeafRole, LeafSpec, LiveCredentials, durable};
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use topology::admission::{Admission, Judgement};
use topology::identity::Identity;
use topology::record::ip::IpEntry;

use super::Row;

/// How much is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// Handshakes for each figure
    #[arg(long, default_value_t = 4000)]
    pub handshakes: usize,
    /// Entries of the deny list in the third run
    #[arg(long, default_value_t = 1000)]
    pub denied: usize,
}

/// A mesh of paris, whose hub serves, and tokyo, whose agent calls.
struct Mesh {
    dir: tempfile::TempDir,
    authority: Authority,
    kind: KeyKind,
}

/// Measures with both kinds of keys, and with a long deny list.
pub fn pki(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, kind) in [("P-256", KeyKind::P256), ("Ed25519", KeyKind::Ed25519)] {
        let mesh = Mesh::new(kind)?;
        rows.extend(handshakes(name, &mesh, options.handshakes)?);
    }
    let mesh = Mesh::new(KeyKind::P256)?;
    let began = Instant::now();
    mesh.deny(options.denied)?;
    let each = began.elapsed().as_secs_f64() * 1e3 / options.denied.max(1) as f64;
    rows.push(row(format!("revoking one of {} leaves, list signed and on disk", options.denied), each, "ms"));
    rows.extend(handshakes(&format!("P-256, {} denied", options.denied), &mesh, options.handshakes)?);
    for ranges in [4, 1024] {
        rows.push(row(format!("an address held against {ranges} blocks"), lookup_ns(ranges), "ns"));
    }
    for granted in [8, 200] {
        let what = format!("a record held against 4 blocks and a grant of {granted} namespaces");
        rows.push(Row { target: Some(200.0), ..row(what, record_check_ns(granted)?, "ns") });
    }
    Ok(rows)
}

fn handshakes(name: &str, mesh: &Mesh, count: usize) -> Result<Vec<Row>> {
    let (hub, client) = (mesh.leaf("paris", LeafRole::Hub)?, mesh.leaf("tokyo", LeafRole::Remote)?);
    // Not counted: first use of everything.
    run(&hub, &client, 50)?;
    let began = Instant::now();
    let (served, called) = run(&hub, &client, count)?;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let each = |nanos: u64| nanos as f64 / count as f64 / 1e3;
    Ok(vec![
        row(format!("{name}: a mutual handshake, the hub's side"), each(served), "us"),
        row(format!("{name}: the same, the client's side"), each(called), "us"),
        row(format!("{name}: handshakes a second that a core of the hub bears"), 1e6 / each(served), "/s"),
        row(format!("{name}: handshakes a second, one after the other, on two threads"), rate, "/s"),
    ])
}

/// Makes `count` handshakes, one after the other. Nanoseconds on a processor of the serving and of the calling thread.
fn run(hub: &LiveCredentials, client: &LiveCredentials, count: usize) -> Result<(u64, u64)> {
    let (sender, receiver) = mpsc::sync_channel::<DuplexStream>(1);
    let acceptor = Acceptor::new(hub.clone());
    let connector =
        Connector::new(client.clone(), Expected::Peer("paris".parse().context("a cluster's name")?));
    let serving = thread::spawn(move || {
        on_processor(async {
            for stream in receiver {
                let (_stream, identity) = acceptor.accept(stream).await.context("accept")?;
                identity.accepted().ok_or_else(|| anyhow!("refused: {identity}"))?;
            }
            Ok(())
        })
    });
    let calling = thread::spawn(move || {
        on_processor(async {
            for _ in 0..count {
                let (near, far) = tokio::io::duplex(1 << 16);
                sender.send(far).context("the hub's side has ended")?;
                connector.connect("paris.mesh.cilium.io", near).await.context("connect")?;
            }
            drop(sender);
            Ok(())
        })
    });
    let joined =
        |thread: thread::JoinHandle<Result<u64>>| thread.join().map_err(|_panic| anyhow!("a panic"))?;
    Ok((joined(serving)?, joined(calling)?))
}

/// Runs on this thread alone, and says how long it was on a processor, in nanoseconds.
fn on_processor(work: impl Future<Output = Result<()>>) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("a runtime")?;
    let began = processor_time()?;
    runtime.block_on(work)?;
    Ok(processor_time()? - began)
}

fn processor_time() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("read schedstat")?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    first.parse().context("schedstat")
}

/// Nanoseconds to find an address in so many blocks, or not to.
fn lookup_ns(ranges: u32) -> f64 {
    // Every other /24, so that none merge.
    let net = |at: u32| ipnet::Ipv4Net::new((0x0a00_0000 + at * 512).into(), 24).map(ipnet::IpNet::V4);
    let blocks: Blocks = (0..ranges).filter_map(|at| net(at).ok()).collect();
    let lookups = 4_000_000_u32;
    let mut inside = 0_u32;
    let began = Instant::now();
    for at in 0..lookups {
        // A step without a common divisor, so that branches cannot be learned.
        let address = 0x0a00_0000 + at.wrapping_mul(7919) % (ranges * 512);
        inside += u32::from(blocks.contains(std::net::IpAddr::V4(address.into())));
    }
    let took = began.elapsed().as_nanos() as f64;
    std::hint::black_box(inside);
    took / f64::from(lookups)
}

/// Nanoseconds to decide whether a peer's address record is taken: its namespace by the import grant, its address by the
/// passport's blocks.
fn record_check_ns(granted: usize) -> Result<f64> {
    let names: Vec<String> = (0..granted).map(|at| format!("namespace-{at}")).collect();
    let grant =
        serde_json::from_value(json!({"identityNamespaces": {"include": names}})).context("a grant")?;
    let blocks = ["10.2.0.0/16", "10.4.0.0/16", "192.168.2.0/24", "fd00:10:2::/48"];
    let blocks: Vec<ipnet::IpNet> = blocks.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let admission = Admission { space: Some(blocks.into_iter().collect()), grant };
    let entries: Vec<IpEntry> = (0..1024_usize)
        .map(|at| {
            let namespace = format!("namespace-{}", at % granted);
            Ok(IpEntry {
                block: format!("10.2.{}.{}/32", at / 256, at % 256).parse().context("an address")?,
                identity: Identity(200_000),
                host: None,
                pod: Some((namespace, "pod".to_owned())),
            })
        })
        .collect::<Result<_>>()?;
    let rounds = 400;
    let mut taken = 0_usize;
    let began = Instant::now();
    for _ in 0..rounds {
        taken += entries.iter().filter(|entry| matches!(admission.address(entry), Judgement::Whole)).count();
    }
    let took = began.elapsed().as_nanos() as f64;
    ensure!(taken == rounds * entries.len(), "{taken} records were taken");
    Ok(took / taken as f64)
}

fn row(what: String, figure: f64, unit: &'static str) -> Row {
    Row { what, figure, target: None, unit }
}

impl Mesh {
    fn new(kind: KeyKind) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("isthmus-bench-pki-").tempdir()?;
        let domain = "mesh.example".parse().context("a trust domain")?;
        let authority = Authority::init(&dir.path().join("authority"), domain, kind)?;
        let mesh = Self { dir, authority, kind };
        for (name, id, pods) in [("paris", 1_u32, "10.1.0.0/16"), ("tokyo", 2, "10.2.0.0/16")] {
            let key = PrivateKey::generate(kind)?;
            let request = EnrolRequest {
                cluster: name.parse().context("a cluster's name")?,
                id: id.try_into().context("a cluster's id")?,
                pod_cidrs: vec![pods.parse().context("a block")?],
                node_cidrs: Vec::new(),
                shared_node_cidrs: Vec::new(),
                service_cidrs: Vec::new(),
                hub_addresses: Vec::new(),
            };
            let enrolled = mesh.authority.enroll(&request, &SigningRequest::from_pem(&key.request()?)?)?;
            let home = mesh.path(name);
            durable::private_dir(&home)?;
            key.write(&home.join(PASSPORT_KEY))?;
            ClusterAuthority::write_passport(&home, &enrolled.passport, &[enrolled.root])?;
        }
        Ok(mesh)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A new leaf, with the deny list beside it if there is one.
    fn leaf(&self, cluster: &str, role: LeafRole) -> Result<LiveCredentials> {
        let out = self.path(&format!("{cluster}-{role}"));
        issue(&self.path(cluster), role, self.kind, &out)?;
        self.authority.bundle()?.write_documents(&out)?;
        Ok(LiveCredentials::fixed(Credentials::load(&out)?))
    }

    /// Revokes so many leaves of tokyo.
    fn deny(&self, count: usize) -> Result<()> {
        let out = self.path("denied");
        for _ in 0..count {
            issue(&self.path("tokyo"), LeafRole::Local, self.kind, &out)?;
            let leaf = pki::files::read_certificates(&out.join(pki::files::CERTIFICATE))?;
            let der = leaf.first().context("a leaf")?;
            self.authority.revoke(&Subject::Certificate { der, keep_key: false }, "measured")?;
        }
        Ok(())
    }
}

fn issue(home: &Path, role: LeafRole, kind: KeyKind, out: &Path) -> Result<()> {
    let key = PrivateKey::generate(kind)?;
    let request = SigningRequest::from_pem(&key.request()?)?;
    let spec = LeafSpec::new(role, "n1".parse().context("a node's name")?);
    Ok(ClusterAuthority::open(home)?.issue_leaf(&spec, &request)?.write(out, Some(&key))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures_something() {
        let rows = pki(&Options { handshakes: 5, denied: 2 }).expect("measured");
        assert_eq!(rows.len(), 17);
        for row in rows {
            assert!(row.figure > 0.0 && row.figure.is_finite(), "{row}");
        }
    }
}
