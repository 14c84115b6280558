//! `bench source`: a hub that follows an API server with a large cluster in it.
//!
//! The API server is the small one, in this process, on the same machine: times include its work. Latencies are read from
//! the output of `etcdctl watch`, so they include that program.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, BufStream};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::{Row, percentile};
use crate::authority::{Authority, Enrolment, Role};
use crate::http::{self, Url};
use crate::kube_api::{Fault, KubeApi, SmallApi, SmallOptions};
use crate::loopback::{free_port, loopback};
use crate::programs::Programs;
use crate::wait::eventually;

/// How large the cluster is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// Services, all global
    #[arg(long, default_value_t = 10_000)]
    pub services: usize,
    /// Endpoints, in one slice a service
    #[arg(long, default_value_t = 100_000)]
    pub endpoints: usize,
    /// Nodes
    #[arg(long, default_value_t = 1000)]
    pub nodes: usize,
    /// Pods of the second run; 0: no second run
    #[arg(long, default_value_t = 100_000)]
    pub pods: usize,
    /// Changes of one endpoint, one after the other
    #[arg(long, default_value_t = 300)]
    pub changes: usize,
}

/// Measures without pods, which is what the targets are for, and with them.
pub async fn source(options: &Options) -> Result<Vec<Row>> {
    let mut rows = run(options, 0).await.context("without pods")?;
    if options.pods > 0 {
        rows.extend(run(options, options.pods).await.context("with pods")?);
    }
    Ok(rows)
}

async fn run(options: &Options, pods: usize) -> Result<Vec<Row>> {
    let api = KubeApi::start_small(SmallOptions::default()).await?;
    let server = api.small().context("the small API server")?;
    server.load(objects(options, pods)).context("load")?;
    let programs = Programs::locate()?;
    programs.ensure_daemons(&["mesh-apiserver", "meshctl"])?;
    let dir = tempfile::Builder::new().prefix("isthmus-bench-source-").tempdir()?;
    certificates(&programs, dir.path())?;

    let begun = Instant::now();
    let hub = Hub::start(&programs, dir.path(), api.kubeconfig())?;
    hub.ready().await?;
    let listed = begun.elapsed();
    let requests = server.requests().total();
    let resident = hub.memory_mib("VmRSS:")?;
    let peak = hub.memory_mib("VmHWM:")?;
    let samples = changes(options, server, &hub, dir.path()).await?;

    // A relist of everything that finds nothing new.
    server.reset_requests();
    let relists = hub.relists().await?;
    server.faults().inject(Fault::FailWatches { status: 410 });
    eventually("every kind is listed again", LONG, || async {
        let now = hub.relists().await?;
        ensure!(now >= relists + 5, "{now} lists, {relists} before");
        Ok(())
    })
    .await?;
    let after = hub.memory_mib("VmHWM:")?;
    let targets = pods == 0;
    let row = |what: &str, figure: f64, target: Option<f64>, unit| Row {
        what: if pods == 0 { what.to_owned() } else { format!("with {pods} pods: {what}") },
        figure,
        target: target.filter(|_| targets),
        unit,
    };
    let millis = |micros: u64| micros as f64 / 1000.0;
    Ok(vec![
        row("hub started to all published", listed.as_secs_f64(), Some(10.0), "s"),
        row("requests for it", requests as f64, None, ""),
        row("resident then", resident, Some(400.0), "MiB"),
        row("peak till then", peak, None, "MiB"),
        row("one endpoint changed to its event, p50", millis(percentile(&samples, 50)), Some(5.0), "ms"),
        row("the same, p99", millis(percentile(&samples, 99)), None, "ms"),
        row("peak with a relist of everything", after, None, "MiB"),
        row("requests for the relist", server.requests().total() as f64, None, ""),
    ])
}

/// Microseconds from each change of an endpoint to its event at a client.
async fn changes(options: &Options, server: &SmallApi, hub: &Hub, dir: &Path) -> Result<Vec<u64>> {
    let key = format!("{PREFIX}ns0/s0");
    let mut command = hub.etcdctl(dir);
    command.args(["watch", &key, "--rev=1"]).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut watch = command.kill_on_drop(true).spawn().context("start etcdctl")?;
    let mut lines = BufReader::new(watch.stdout.take().context("piped")?).lines();
    let mut seen = async |address: &str| -> Result<()> {
        loop {
            let line = timeout(LONG, lines.next_line()).await.context("no event")??;
            if line.context("etcdctl ended")?.contains(&format!("\"{address}\"")) {
                return Ok(());
            }
        }
    };
    seen(&address(0)).await?;
    let mut samples = Vec::with_capacity(options.changes);
    for number in 0..options.changes {
        let changed = format!("192.0.2.{}", number % 250 + 1);
        let begun = Instant::now();
        server.load([slice(0, std::slice::from_ref(&changed))]).context("change")?;
        seen(&changed).await?;
        samples.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(samples)
}

fn certificates(programs: &Programs, dir: &Path) -> Result<()> {
    let authority = Authority::init(&programs.daemon("meshctl")?, &dir.join("authority"))?;
    let mut enrolment = Enrolment::of_lab_cluster("bench", 1);
    enrolment.hub_addresses = vec![Ipv4Addr::LOCALHOST.to_string()];
    authority.enroll(&enrolment, &dir.join("cluster"))?;
    authority.leaf(&dir.join("cluster"), Role::Hub, "n1", &dir.join("hub"))?;
    authority.leaf(&dir.join("cluster"), Role::Admin, "n1", &dir.join("admin"))
}

/// A hub with its store on disk; killed when dropped.
struct Hub {
    child: Child,
    api: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

impl Hub {
    fn start(programs: &Programs, dir: &Path, kubeconfig: &Path) -> Result<Self> {
        let (api, admin) = (loopback(free_port()?), loopback(free_port()?));
        let log = dir.join("hub.log");
        let file = fs::File::create(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(programs.daemon("mesh-apiserver")?);
        command.args(["--cluster-name=bench", "--cluster-id=1", "--source=kubernetes"]);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--data-dir").arg(dir.join("data"));
        command.arg("--tls-dir").arg(dir.join("hub"));
        command.arg(format!("--listen={api}")).arg(format!("--admin-listen={admin}"));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        Ok(Self { child: command.spawn().context("start the hub")?, api, admin, log })
    }

    async fn ready(&self) -> Result<()> {
        let ready = eventually("the hub is ready", LONG, || async { self.page("/readyz").await.map(drop) });
        ready.await.with_context(|| fs::read_to_string(&self.log).unwrap_or_default())
    }

    async fn relists(&self) -> Result<u64> {
        let page = self.page("/metrics").await?;
        let counts = page.lines().filter(|line| line.starts_with("mesh_apiserver_source_relists_total{"));
        let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        Ok(counts.sum())
    }

    async fn page(&self, path: &str) -> Result<String> {
        let url = Url { address: self.admin, path: path.to_owned() };
        let stream = TcpStream::connect(url.address).await.context("connect")?;
        let answer = http::get(&mut BufStream::new(stream), &url, false).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn memory_mib(&self, field: &str) -> Result<f64> {
        let pid = self.child.id().context("the hub runs")?;
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)).context("memory of the hub")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("memory of the hub")?;
        Ok(kib / 1024.0)
    }

    fn etcdctl(&self, dir: &Path) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=https://{}", self.api));
        command.arg("--cacert").arg(dir.join("hub/ca.crt"));
        command.arg("--cert").arg(dir.join("admin/tls.crt")).arg("--key").arg(dir.join("admin/tls.key"));
        command
    }
}

fn objects(options: &Options, pods: usize) -> impl Iterator<Item = Value> {
    let Options { services, endpoints, nodes, .. } = *options;
    let each = endpoints / services.max(1);
    let nodes = (0..nodes).map(node);
    let pairs = (0..services).flat_map(move |number| {
        let addresses: Vec<String> = (number * each..(number + 1) * each).map(address).collect();
        [service(number), slice(number, &addresses)]
    });
    nodes.chain(pairs).chain((0..pods).map(move |number| pod(number, services.max(1))))
}

fn node(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("n{number}"), "labels": {"kubernetes.io/hostname": format!("n{number}")}},
        "spec": {"podCIDRs": [format!("100.{}.{}.0/24", 64 + number / 250, number % 250)]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.16.{}.{}", number / 250, number % 250 + 1)}]}})
}

fn service(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{number}"), "namespace": namespace(number),
            "annotations": {"service.cilium.io/global": "true"}},
        "spec": {"clusterIP": format!("10.96.{}.{}", number / 250, number % 250 + 1),
            "selector": {"app": format!("s{number}")}, "ports": [{"name": "http", "port": 80}]}})
}

fn slice(number: usize, addresses: &[String]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "nodeName": "n1", "conditions": {"ready": true}}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("s{number}-a"), "namespace": namespace(number),
            "labels": {"kubernetes.io/service-name": format!("s{number}")}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]})
}

/// As large as pods are: most of it is not used.
fn pod(number: usize, services: usize) -> Value {
    let app = number % services;
    let address = address(number);
    let env: Vec<Value> =
        (0..20).map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "some value"})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{number}"), "namespace": namespace(app), "labels": {"app": format!("s{app}")},
            "annotations": {"note": "x".repeat(500)}},
        "spec": {"nodeName": format!("n{}", number % 1000), "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "registry.example/app:1", "env": env,
                "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "172.16.0.1"}})
}

fn namespace(number: usize) -> String {
    format!("ns{}", number % 100)
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1)
}

const PREFIX: &str = "cilium/state/services/v1/bench/";
/// For what takes long.
const LONG: Duration = Duration::from_secs(300);
