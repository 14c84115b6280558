//! A mesh of two clusters on loopback: an authority, an etcd, replicas of the hub of paris, a source that keeps changing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::authority::{Authority, Enrolment, Role};
use e2e::eventually;
use e2e::http;
use e2e::loopback::{free_port, loopback};
use e2e::manifest::{Manifests, ServiceManifest, yaml};
use e2e::programs::Programs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::watcher::{Told, Watcher, state};

const SERVICES: &str = "cilium/state/services/v1/paris/";

/// A process that can be killed and started again with the same arguments; killed when dropped, and when the test is.
pub(crate) struct Process {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// The etcd behind the store of paris.
pub(crate) struct EtcdProcess {
    process: Process,
    port: u16,
}

/// A hub of paris.
pub(crate) struct Replica {
    name: String,
    process: Process,
    api: u16,
    admin: u16,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) text: String,
}

/// Holds what all processes share.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    programs: Programs,
    manifests: Manifests,
    pub(crate) etcd: EtcdProcess,
    changing: Option<JoinHandle<Result<()>>>,
    /// The label `n` of each service, as the source has it.
    source: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Ground {
    /// Certificates, and an etcd that answers.
    pub(crate) async fn prepare() -> Result<Self> {
        let programs = Programs::locate()?;
        programs.ensure_daemons(&["mesh-apiserver", "meshctl"])?;
        let dir = tempfile::Builder::new().prefix("isthmus-etcd-store-").tempdir()?;
        let authority = Authority::init(&programs.daemon("meshctl")?, &dir.path().join("authority"))?;
        for (cluster, id) in [("paris", 1), ("berlin", 2)] {
            let passport = dir.path().join(cluster);
            authority.enroll(&Enrolment::of_lab_cluster(cluster, id), &passport)?;
            for role in [Role::Hub, Role::Remote, Role::Local, Role::Admin, Role::Etcd, Role::Store] {
                authority.leaf(&passport, role, "n1", &tls(dir.path(), cluster, role))?;
            }
        }
        let manifests = Manifests::create(dir.path())?;
        let etcd = EtcdProcess::start(dir.path())?;
        let source = Arc::default();
        let ground = Self { dir, programs, manifests, etcd, changing: None, source };
        let (endpoint, own) = (ground.etcd.endpoint(), ground.tls("paris", Role::Store));
        eventually("etcd answers its hub", Duration::from_secs(60), || async {
            let said = ground.at_etcd(&endpoint, &own, "put").await?;
            ensure!(said.success, "{}\n{}", said.text, ground.etcd.log()?);
            Ok(())
        })
        .await?;
        Ok(ground)
    }

    /// Starts a replica of paris' hub.
    pub(crate) async fn replica(&self, name: &str) -> Result<Replica> {
        let (api, admin) = (free_port()?, free_port()?);
        let show = |path: PathBuf| path.display().to_string();
        let args = [
            ("cluster-name", "paris".to_owned()),
            ("cluster-id", "1".to_owned()),
            ("replica-name", name.to_owned()),
            ("source", format!("manifests:{}", self.manifests.dir().display())),
            ("store", format!("etcd:{}", self.etcd.endpoint())),
            ("store-tls-dir", show(self.tls("paris", Role::Store))),
            ("tls-dir", show(self.tls("paris", Role::Hub))),
            ("listen", loopback(api).to_string()),
            ("admin-listen", loopback(admin).to_string()),
        ];
        let args = args.map(|(flag, value)| format!("--{flag}={value}")).into();
        let log = self.dir.path().join(format!("hub-{name}.log"));
        let mut process =
            Process { program: self.programs.daemon("mesh-apiserver")?, args, log, child: None };
        process.start()?;
        Ok(Replica { name: name.to_owned(), process, api, admin })
    }

    /// From here on services change all the time: one counts, others come and go.
    pub(crate) fn change_on(&mut self) {
        let (manifests, source) = (self.manifests.clone(), self.source.clone());
        self.changing = Some(tokio::spawn(async move {
            for n in 1_u64.. {
                put(&manifests, &source, "counter", n)?;
                let other = format!("other-{}", n % 7);
                if n % 3 == 0 && manifests.has(&other) {
                    source.lock().unwrap_or_else(PoisonError::into_inner).remove(&other);
                    manifests.delete(&other)?;
                } else {
                    put(&manifests, &source, &other, n)?;
                }
                sleep(Duration::from_millis(40)).await;
            }
            Ok(())
        }));
    }

    /// Ends the changes with one that is the last of all, and returns its value of the counter.
    pub(crate) async fn come_to_rest(&mut self) -> Result<u64> {
        let changing = self.changing.take().context("nothing changes")?;
        changing.abort();
        match changing.await {
            Ok(ended) => ended.context("changes ended early")?,
            Err(error) => ensure!(error.is_cancelled(), "{error}"),
        }
        let n = self.source.lock().unwrap_or_else(PoisonError::into_inner).get("counter").copied();
        let last = n.context("no counter")? + 1000;
        // The others first: what the hub reads last is the counter, or it reads all at once.
        let probe = eventually("the hub has read the others", Duration::from_secs(60), || async {
            self.source_is(&self.truth().await?)
        });
        probe.await?;
        put(&self.manifests, &self.source, "counter", last)?;
        Ok(last)
    }

    /// Fails unless these changes end in what the source has.
    pub(crate) fn source_is(&self, truth: &[Told]) -> Result<()> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted: BTreeMap<String, String> =
            source.into_iter().map(|(name, n)| (format!("{SERVICES}shop/{name}"), n.to_string())).collect();
        let found = state(truth)?;
        ensure!(found == wanted, "etcd has {found:#?}, the source {wanted:#?}");
        Ok(())
    }

    /// All changes of services, by etcd itself.
    pub(crate) async fn truth(&self) -> Result<Vec<Told>> {
        let (endpoint, own) = (self.etcd.endpoint(), self.tls("paris", Role::Store));
        let get =
            ["get", "--prefix", SERVICES, "--sort-by=MODIFY", "--order=DESCEND", "--limit=1", "-w", "json"];
        let newest = self.run(&endpoint, &own, &get).await?;
        ensure!(newest.success, "{}", newest.text);
        let newest: Value = serde_json::from_str(&newest.text).with_context(|| newest.text.clone())?;
        let newest = newest["kvs"][0]["mod_revision"].as_u64().context("no service")?;
        let command = self.watch_command(&endpoint, &own);
        let watcher = Watcher::start("etcd itself", command, self.dir.path().to_owned())?;
        eventually("all changes at etcd", Duration::from_secs(60), || async {
            let told = watcher.told()?;
            ensure!(told.last().is_some_and(|last| last.revision >= newest), "{:?}", told.last());
            Ok(told)
        })
        .await
    }

    /// A client of berlin that watches the services of paris.
    pub(crate) fn watch(&self, name: &str, endpoints: &str) -> Result<Watcher> {
        let command = self.watch_command(endpoints, &self.tls("berlin", Role::Remote));
        Watcher::start(name, command, self.dir.path().to_owned())
    }

    /// Runs etcdctl at replicas, with a certificate of berlin for `Remote` and of paris for all other roles.
    pub(crate) async fn etcdctl(&self, endpoints: &str, role: Role, args: &[&str]) -> Result<Said> {
        let cluster = if role == Role::Remote { "berlin" } else { "paris" };
        self.run(endpoints, &self.tls(cluster, role), args).await
    }

    /// Writes or reads a key of etcd itself with this certificate.
    pub(crate) async fn at_etcd(&self, endpoint: &str, tls: &Path, verb: &str) -> Result<Said> {
        let args: &[&str] = if verb == "put" { &["put", "test/own", "secret"] } else { &["get", "test/own"] };
        self.run(endpoint, tls, &[args, &["--command-timeout=2s", "--dial-timeout=2s"]].concat()).await
    }

    /// What a hub says that is given the mesh root to judge its etcd by.
    pub(crate) async fn refused_under_the_root(&self) -> Result<String> {
        let careless = self.dir.path().join("careless");
        fs::create_dir(&careless)?;
        for file in ["tls.crt", "tls.key"] {
            fs::copy(self.tls("paris", Role::Store).join(file), careless.join(file))?;
        }
        fs::copy(self.tls("paris", Role::Hub).join("ca.crt"), careless.join("ca.crt"))?;
        let mut replica = self.replica("careless").await?;
        replica.kill().await?;
        let flag = |arg: &String| arg.starts_with("--store-tls-dir=");
        let at = replica.process.args.iter().position(flag).context("no flag")?;
        replica.process.args[at] = format!("--store-tls-dir={}", careless.display());
        fs::remove_file(&replica.process.log)?;
        replica.start()?;
        eventually("the hub says why", Duration::from_secs(30), || async {
            let log = replica.log()?;
            ensure!(log.contains("no answer from etcd"), "{log}");
            Ok(log)
        })
        .await
    }

    /// Where the certificate of a role lies.
    pub(crate) fn tls(&self, cluster: &str, role: Role) -> PathBuf {
        tls(self.dir.path(), cluster, role)
    }

    fn watch_command(&self, endpoints: &str, tls: &Path) -> Command {
        let mut command = self.etcdctl_command(endpoints, tls);
        command.args(["watch", "--prefix", SERVICES, "--rev=1", "-w", "json"]);
        command
    }

    async fn run(&self, endpoints: &str, tls: &Path, args: &[&str]) -> Result<Said> {
        let mut command = tokio::process::Command::from(self.etcdctl_command(endpoints, tls));
        if !args.iter().any(|arg| arg.starts_with("--command-timeout")) {
            command.args(["--command-timeout=10s", "--dial-timeout=5s"]);
        }
        let output = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(Duration::from_secs(30), output).await.context("etcdctl does not end")??;
        let text = [output.stdout, output.stderr].concat();
        Ok(Said { success: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() })
    }

    fn etcdctl_command(&self, endpoints: &str, tls: &Path) -> Command {
        let mut command = alone("etcdctl");
        // The mesh root: clients do not care which cluster's server this is, and etcd's certificate is below it too.
        let root = self.tls("paris", Role::Hub).join("ca.crt");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}")).arg("--cacert").arg(root);
        command.arg("--cert").arg(tls.join("tls.crt")).arg("--key").arg(tls.join("tls.key"));
        command
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(changing) = &self.changing {
            changing.abort();
        }
        if std::thread::panicking() {
            eprintln!("logs were in {}", self.dir.path().display());
        }
    }
}

impl EtcdProcess {
    fn start(dir: &Path) -> Result<Self> {
        let (port, peer) = (free_port()?, free_port()?);
        let clients = format!("https://{}", loopback(port));
        let peers = format!("http://{}", loopback(peer));
        let own = tls(dir, "paris", Role::Etcd);
        let file = |name: &str| own.join(name).display().to_string();
        let args = [
            ("name", "one".to_owned()),
            ("data-dir", dir.join("etcd").display().to_string()),
            ("listen-client-urls", clients.clone()),
            ("advertise-client-urls", clients),
            ("listen-peer-urls", peers.clone()),
            ("initial-advertise-peer-urls", peers.clone()),
            ("initial-cluster", format!("one={peers}")),
            ("cert-file", file("tls.crt")),
            ("key-file", file("tls.key")),
            // The passport of paris, as meshctl wrote it: not the mesh root.
            ("trusted-ca-file", file("ca.crt")),
            ("client-cert-auth", "true".to_owned()),
            ("client-cert-allowed-hostname", "store.paris.mesh.cilium.io".to_owned()),
            ("enable-grpc-gateway", "false".to_owned()),
        ];
        let args = args.map(|(flag, value)| format!("--{flag}={value}")).into();
        let mut process = Process { program: "etcd".into(), args, log: dir.join("etcd.log"), child: None };
        process.start()?;
        Ok(Self { process, port })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", loopback(self.port))
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    pub(crate) fn log(&self) -> Result<String> {
        self.process.log()
    }
}

impl EtcdProcess {
    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.process.start()
    }
}

impl Replica {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", loopback(self.api))
    }

    /// Waits until it says that it is ready. Fails at once if it ends.
    pub(crate) async fn ready(&self) -> Result<()> {
        let why = format!("replica {} is ready", self.name);
        let ready =
            eventually(&why, Duration::from_secs(60), || async { self.page("/readyz").await.map(drop) });
        ready.await.with_context(|| self.log().unwrap_or_default())
    }

    /// What it says of its store.
    pub(crate) async fn store(&self) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.page("/status").await?)?;
        Ok(status["store"].clone())
    }

    /// A page of its admin port; fails unless it is answered with 200.
    pub(crate) async fn page(&self, path: &str) -> Result<String> {
        http::page(loopback(self.admin), path).await
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Stops it as it stands (SIGSTOP): connections stay, nothing moves.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.child.as_ref().and_then(Child::id).context("it does not run")?;
        Ok(kill_process(Pid::from_raw(pid.cast_signed()).context("process id")?, signal)?)
    }

    /// Asks it to end, and waits until it has, in good order.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let child = self.process.child.as_mut().context("it does not run")?;
        let ended = timeout(Duration::from_secs(20), child.wait()).await.context("it does not end")??;
        self.process.child = None;
        ensure!(ended.success(), "{ended}: {}", self.log()?);
        Ok(())
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        self.process.start()
    }

    pub(crate) fn log(&self) -> Result<String> {
        self.process.log()
    }
}

impl Process {
    fn start(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = tokio::process::Command::from(alone(&self.program));
        command.args(&self.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("start {}", self.program.display()))?);
        Ok(())
    }

    async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill().await.context("kill")
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())
    }
}

/// A program whose life ends with the thread that starts it, also if the test is killed.
fn alone(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
    command
}

fn put(manifests: &Manifests, source: &Mutex<BTreeMap<String, u64>>, name: &str, n: u64) -> Result<()> {
    let vip = 10 + name.bytes().last().unwrap_or_default() % 100;
    let service = ServiceManifest::new("shop", name).vip4(&format!("10.96.0.{vip}")).port(80).global();
    let mut object = service.object();
    object["metadata"]["labels"] = json!({ "n": n.to_string() });
    source.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), n);
    manifests.write(name, &yaml(&object)?).map(drop)
}

fn tls(dir: &Path, cluster: &str, role: Role) -> PathBuf {
    dir.join(format!("tls-{cluster}-{role:?}").to_lowercase())
}
