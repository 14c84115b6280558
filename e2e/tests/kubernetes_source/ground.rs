//! A hub of paris on loopback that follows an API server, and what it publishes, read with Debian's `etcdctl`.

mod replicas;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::authority::{Authority, Enrolment, Role};
use e2e::eventually;
use e2e::http;
use e2e::kube_api::{Begun, Fault, KubeApi, SmallApi, SmallOptions};
use e2e::loopback::{free_port, loopback};
use e2e::peer_config::hub_name;
use e2e::programs::Programs;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::timeout;

/// Within which time what was done must be seen.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Certificates, an API server, and room for hubs.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    programs: Programs,
    authority: Authority,
    api: KubeApi,
}

/// Another cluster: a hub of a folder of manifests.
pub(crate) struct Peer {
    pub(crate) hub: Hub,
    folder: PathBuf,
}

/// A hub; killed when dropped, and when the test is.
pub(crate) struct Hub {
    args: Vec<String>,
    program: PathBuf,
    tls: PathBuf,
    ca: PathBuf,
    log: PathBuf,
    api: u16,
    admin: u16,
    child: Option<Child>,
}

/// A record as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) value: String,
    /// The revision of its last change.
    pub(crate) changed: u64,
}

pub(crate) type Records = BTreeMap<String, Record>;

impl Ground {
    /// Over the small API server.
    pub(crate) async fn small(options: SmallOptions) -> Result<Self> {
        Self::over(KubeApi::start_small(options).await?)
    }

    /// Over whichever API server there is.
    pub(crate) fn over(api: KubeApi) -> Result<Self> {
        let programs = Programs::locate()?;
        programs.ensure_daemons(&["mesh-apiserver", "meshctl"])?;
        let dir = tempfile::Builder::new().prefix("isthmus-kubernetes-source-").tempdir()?;
        let authority = Authority::init(&programs.daemon("meshctl")?, &dir.path().join("authority"))?;
        let ground = Self { dir, programs, authority, api };
        ground.enrol("paris", 1, &[(Role::Hub, "hub"), (Role::Admin, "admin"), (Role::Remote, "remote")])?;
        // To see what a peer is shown.
        ground.enrol("tokyo", 2, &[(Role::Remote, "peer")])?;
        fs::create_dir(ground.peers())?;
        Ok(ground)
    }

    fn enrol(&self, cluster: &str, id: u8, leaves: &[(Role, &str)]) -> Result<()> {
        let passport = self.dir.path().join(cluster);
        let mut enrolment = Enrolment::of_lab_cluster(cluster, id);
        // Each cluster has addresses of its own.
        enrolment.hub_addresses = vec![Ipv4Addr::new(127, 0, 0, id).to_string()];
        if !passport.exists() {
            self.authority.enroll(&enrolment, &passport)?;
        }
        for (role, name) in leaves {
            self.authority.leaf(&passport, *role, "n1", &self.dir.path().join(name))?;
        }
        Ok(())
    }

    /// The folder of the peers' configurations.
    pub(crate) fn peers(&self) -> PathBuf {
        self.dir.path().join("peers")
    }

    /// Another cluster, which paris is told of.
    pub(crate) async fn peer(&self, name: &str, id: u8) -> Result<Peer> {
        let (tls, admin) = (format!("{name}-hub"), format!("{name}-admin"));
        self.enrol(name, id, &[(Role::Hub, &tls), (Role::Admin, &admin)])?;
        let folder = self.dir.path().join(format!("{name}-manifests"));
        fs::create_dir(&folder)?;
        let source = vec![format!("--source=manifests:{}", folder.display())];
        let hub = self.start_as((name, id), (&tls, &admin), &format!("{name}-data"), source)?;
        let peer = Peer { hub, folder };
        peer.hub.ready().await?;
        self.tell_of(name, &peer)?;
        Ok(peer)
    }

    /// Writes a peer's configuration, in ClusterMesh's layout.
    pub(crate) fn tell_of(&self, name: &str, peer: &Peer) -> Result<()> {
        let tls = self.dir.path().join("remote");
        self.write_peer(name, &peer.config(name, &tls, &tls.join("ca.crt")))
    }

    /// Puts a text into the folder of the peers' configurations.
    pub(crate) fn write_peer(&self, name: &str, text: &str) -> Result<()> {
        let temporary = self.dir.path().join(format!("{name}.tmp"));
        fs::write(&temporary, text)?;
        fs::rename(temporary, self.peers().join(name)).context("tell of a peer")
    }

    /// A hub that follows the API server, with its store in a folder of this name.
    pub(crate) fn hub(&self, data: &str) -> Result<Hub> {
        self.hub_with(data, [""; 0])
    }

    /// A hub that follows the API server, with flags of its own.
    pub(crate) fn hub_with(
        &self,
        data: &str,
        flags: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Hub> {
        let kubeconfig = format!("--kubeconfig={}", self.api.kubeconfig().display());
        let source = vec!["--source=kubernetes".to_owned(), kubeconfig];
        self.start(data, source.into_iter().chain(flags.into_iter().map(Into::into)).collect())
    }

    /// All objects of a kind, by name.
    pub(crate) async fn objects(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
    ) -> Result<BTreeMap<String, Value>> {
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api = Api::<DynamicObject>::all_with(self.client().await?, &resource);
        let objects = api.list(&ListParams::default()).await.with_context(|| format!("list {plural}"))?;
        let named = |object: DynamicObject| {
            Ok((object.metadata.name.clone().context("a name")?, serde_json::to_value(object)?))
        };
        objects.items.into_iter().map(named).collect()
    }

    /// A file beside the hubs' data.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A hub of what the API server has now, as manifests.
    pub(crate) async fn hub_of_manifests(&self, data: &str) -> Result<Hub> {
        let folder = self.dir.path().join(format!("{data}-manifests"));
        fs::create_dir(&folder)?;
        let client = self.client().await?;
        for (group, version, kind) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let all = Api::<DynamicObject>::all_with(client.clone(), &resource);
            let mut text = String::new();
            for object in all.list(&ListParams::default()).await?.items {
                let mut object = serde_json::to_value(object)?;
                object["apiVersion"] = json!(resource.api_version);
                object["kind"] = json!(kind);
                text.push_str(&format!("---\n{object}\n"));
            }
            fs::write(folder.join(format!("{}.yaml", kind.to_lowercase())), text)?;
        }
        self.start(data, vec![format!("--source=manifests:{}", folder.display())])
    }

    /// The slices of other clusters' backends, by name.
    pub(crate) async fn remote_slices(&self) -> Result<BTreeMap<String, Value>> {
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"));
        let all = Api::<DynamicObject>::all_with(self.client().await?, &resource);
        let ours = ListParams::default().labels("multicluster.kubernetes.io/source-cluster");
        let mut slices = BTreeMap::new();
        for slice in all.list(&ours).await?.items {
            let name = slice.metadata.name.clone().unwrap_or_default();
            let mut slice = serde_json::to_value(slice)?;
            slice["apiVersion"] = json!("discovery.k8s.io/v1");
            slice["kind"] = json!("EndpointSlice");
            slices.insert(name, slice);
        }
        Ok(slices)
    }

    fn start(&self, data: &str, source: Vec<String>) -> Result<Hub> {
        self.start_as(("paris", 1), ("hub", "admin"), data, source)
    }

    /// Starts the hub of a cluster, by name and id, with its certificate and that of its administrator.
    fn start_as(
        &self,
        (cluster, id): (&str, u8),
        (tls, admin_tls): (&str, &str),
        data: &str,
        source: Vec<String>,
    ) -> Result<Hub> {
        let (api, admin) = (free_port()?, free_port()?);
        let path = |name: &str| self.dir.path().join(name);
        let args = [
            ("cluster-name", cluster.to_owned()),
            ("cluster-id", id.to_string()),
            ("data-dir", path(data).display().to_string()),
            ("tls-dir", path(tls).display().to_string()),
            ("listen", loopback(api).to_string()),
            ("admin-listen", loopback(admin).to_string()),
        ];
        let args = args.map(|(flag, value)| format!("--{flag}={value}")).into_iter().chain(source).collect();
        let (tls, ca) = (path(admin_tls), path(tls).join("ca.crt"));
        let log = path(&format!("{data}.log"));
        let program = self.programs.daemon("mesh-apiserver")?;
        let mut hub = Hub { args, program, tls, ca, log, api, admin, child: None };
        hub.start()?;
        Ok(hub)
    }

    /// The small API server.
    pub(crate) fn server(&self) -> &SmallApi {
        self.api.small().expect("this test is for the small one")
    }

    pub(crate) fn has_faults(&self) -> bool {
        self.api.faults().is_some()
    }

    pub(crate) fn inject(&self, fault: Fault) -> Begun {
        self.server().faults().inject(fault)
    }

    /// Writes past the network: the server may be away.
    pub(crate) fn load(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        self.server().load(objects).map(drop).context("load")
    }

    /// Writes objects as a client does, with their status.
    pub(crate) async fn apply(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let client = self.client().await?;
        for object in objects {
            let (api, name) = of(&client, &object)?;
            let params = PatchParams::apply("test").force();
            let what = || format!("{} {name}", object["kind"]);
            let mut main = object.clone();
            main.as_object_mut().context("an object")?.remove("status");
            api.patch(&name, &params, &Patch::Apply(&main)).await.with_context(what)?;
            if !object["status"].is_null() {
                let status = json!({"apiVersion": object["apiVersion"], "kind": object["kind"],
                    "metadata": {"name": name}, "status": object["status"]});
                api.patch_status(&name, &params, &Patch::Apply(&status)).await.with_context(what)?;
            }
        }
        Ok(())
    }

    /// Deletes an object as a client does.
    pub(crate) async fn delete(&self, object: &Value) -> Result<()> {
        let (api, name) = of(&self.client().await?, object)?;
        api.delete(&name, &DeleteParams::default()).await.with_context(|| format!("delete {name}")).map(drop)
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.api.kubeconfig()).context("read kubeconfig")?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Client::try_from(config).context("client")
    }

    /// Fails if the small API server was asked for something that it does not do.
    pub(crate) fn nothing_unsupported(&self) -> Result<()> {
        let Some(small) = self.api.small() else { return Ok(()) };
        let unsupported = small.requests().unsupported;
        ensure!(unsupported.is_empty(), "unsupported requests: {unsupported:#?}");
        Ok(())
    }
}

impl Peer {
    /// Where its hub is reached.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        format!("https://{}:{}", hub_name(name), self.hub.api)
    }

    /// How its hub is reached, in ClusterMesh's layout, with the certificate in `tls`.
    pub(crate) fn config(&self, name: &str, tls: &Path, roots: &Path) -> String {
        let (endpoint, host, tls, roots) =
            (self.endpoint(name), hub_name(name), tls.display(), roots.display());
        format!(
            "endpoints:\n- {endpoint}\ntrusted-ca-file: {roots}\ncert-file: {tls}/tls.crt\n\
             key-file: {tls}/tls.key\ncilium-host-aliases:\n- hostname: {host}\n  ips: [127.0.0.1]\n"
        )
    }

    /// What the cluster has, instead of what it had.
    pub(crate) fn has(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let text: String = objects.into_iter().map(|object| format!("---\n{object}\n")).collect();
        let temporary = self.folder.join(".tmp");
        fs::write(&temporary, text)?;
        fs::rename(temporary, self.folder.join("all.yaml")).context("write manifests")
    }
}

impl Hub {
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        // Its life ends with the thread that starts it, also if the test is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.program).args(&self.args).env("RUST_BACKTRACE", "0");
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().context("start the hub")?);
        Ok(())
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.take().context("it does not run")?.kill().await.context("kill")
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) -> Result<()> {
        eventually("the hub is ready", SOON, || async { self.page("/readyz").await.map(drop) })
            .await
            .with_context(|| self.log())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) async fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.page("/status").await?)?)
    }

    /// Waits until its status is as wanted.
    pub(crate) async fn shows(&self, why: &str, wanted: impl Fn(&Value) -> Result<()>) -> Result<()> {
        let shown = eventually(why, SOON, || async {
            let status = self.status().await?;
            wanted(&status).with_context(|| format!("{:#} {:#}", status["source"], status["findings"]))
        });
        shown.await.with_context(|| self.log())
    }

    /// A page of its admin port; fails unless it is answered with 200.
    pub(crate) async fn page(&self, path: &str) -> Result<String> {
        http::page(loopback(self.admin), path).await
    }

    /// All that it publishes: configuration, records for peers, and records for the own agents.
    pub(crate) async fn records(&self) -> Result<Records> {
        let tls = self.tls.clone();
        self.read(&tls, &["cilium/cluster-config/", "cilium/state/", "isthmus/v1/local/"]).await
    }

    /// What the peer tokyo is shown.
    pub(crate) async fn shown(&self) -> Result<Records> {
        self.read(&self.tls.with_file_name("peer"), &["cilium/state/"]).await
    }

    async fn read(&self, tls: &Path, prefixes: &[&str]) -> Result<Records> {
        let mut records = Records::new();
        for prefix in prefixes {
            let mut command = self.etcdctl(tls);
            command.args(["get", "--prefix", prefix, "-w", "json"]);
            let output = timeout(Duration::from_secs(30), command.output()).await.context("etcdctl")??;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "etcdctl get {prefix}: {errors}");
            let answer: Value = serde_json::from_slice(&output.stdout)?;
            for entry in answer["kvs"].as_array().into_iter().flatten() {
                let text = |member: &str| -> Result<String> {
                    let bytes = STANDARD.decode(entry[member].as_str().unwrap_or_default())?;
                    // Values that are compressed are compared as they are.
                    Ok(String::from_utf8(bytes).unwrap_or_else(|error| STANDARD.encode(error.into_bytes())))
                };
                let changed = entry["mod_revision"].as_u64().context("mod_revision")?;
                records.insert(text("key")?, Record { value: text("value")?, changed });
            }
        }
        Ok(records)
    }

    /// Waits until what it publishes is as wanted.
    pub(crate) async fn publishes(
        &self,
        why: &str,
        wanted: impl Fn(&Records) -> Result<()>,
    ) -> Result<Records> {
        let published = eventually(why, SOON, || async {
            let records = self.records().await?;
            wanted(&records)?;
            Ok(records)
        });
        published.await.with_context(|| self.log())
    }
}

/// The values alone.
pub(crate) fn values(records: &Records) -> BTreeMap<&str, &str> {
    records.iter().map(|(key, record)| (key.as_str(), record.value.as_str())).collect()
}

/// A digest of keys, values and the revisions of their last change.
pub(crate) fn digest(records: &Records) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (key, record) in records {
        for text in [key, &record.value, &record.changed.to_string()] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let metadata = &object["metadata"];
    let api = match metadata["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, text(&metadata["name"])))
}

/// The kinds that a hub follows.
const KINDS: [(&str, &str, &str); 5] = [
    ("", "v1", "Namespace"),
    ("", "v1", "Node"),
    ("", "v1", "Service"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
    ("", "v1", "Pod"),
];
