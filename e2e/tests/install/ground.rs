//! An API server, certificates, and `meshctl` as an operator types it. Somebody has to say that programs run: what a
//! cluster's controllers do, done here as far as an installation looks at it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::authority::{Authority, Enrolment, Role};
use e2e::kube_api::{KubeApi, SmallOptions};
use e2e::programs::Programs;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// An API server, and certificates of paris in `hub/`, `local/` and `remote/`.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    programs: Programs,
    pub(crate) api: KubeApi,
}

/// Ends with the test.
pub(crate) struct Controllers(JoinHandle<()>);

impl Drop for Controllers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ground {
    pub(crate) async fn new() -> Result<Self> {
        let programs = Programs::locate()?;
        programs.ensure_daemons(&["mesh-apiserver", "mesh-agent", "meshctl"])?;
        let dir = tempfile::Builder::new().prefix("isthmus-install-").tempdir()?;
        let authority = Authority::init(&programs.daemon("meshctl")?, &dir.path().join("authority"))?;
        let passport = dir.path().join("passport");
        authority.enroll(&Enrolment::of_lab_cluster("paris", 1), &passport)?;
        for (role, name) in [(Role::Hub, "hub"), (Role::Local, "local"), (Role::Remote, "remote")] {
            authority.leaf(&passport, role, "n1", &dir.path().join("certificates").join(name))?;
        }
        let api = KubeApi::start_small(SmallOptions::default()).await?;
        Ok(Self { dir, programs, api })
    }

    /// Where the certificates are.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.dir.path().join("certificates")
    }

    /// A path for a file of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a program.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        self.programs.daemon(name)
    }

    /// Runs `meshctl install` for paris, with what is needed and more.
    pub(crate) async fn install(&self, more: &[&str]) -> Result<Said> {
        let usual = [
            "install",
            "--cluster-name=paris",
            "--cluster-id=1",
            "--image-registry=registry.example/isthmus",
        ];
        self.meshctl(&[&usual, more].concat()).await
    }

    /// Runs `meshctl install`, with certificates.
    pub(crate) async fn install_with_secrets(&self, more: &[&str]) -> Result<Said> {
        let from = format!("--secrets-from={}", self.certificates().display());
        self.install(&[&[from.as_str()], more].concat()).await
    }

    /// Runs `meshctl` against the API server.
    pub(crate) async fn meshctl(&self, args: &[&str]) -> Result<Said> {
        let mut command = Command::new(self.programs.daemon("meshctl")?);
        command.args(args).env("KUBECONFIG", self.api.kubeconfig()).env("RUST_BACKTRACE", "0");
        run(command).await
    }

    /// A client of the API server.
    pub(crate) async fn client(&self) -> Result<Client> {
        client(self.api.kubeconfig()).await
    }

    /// Does what controllers do: says of each program that it runs as it was applied.
    pub(crate) async fn controllers(&self) -> Result<Controllers> {
        let client = self.client().await?;
        Ok(Controllers(tokio::spawn(async move {
            loop {
                for look in [run_all::<StatefulSet>(&client).await, run_all::<Deployment>(&client).await] {
                    report(look);
                }
                report(run_all::<DaemonSet>(&client).await);
                sleep(Duration::from_millis(50)).await;
            }
        })))
    }

    /// The object as it is, if it is.
    pub(crate) async fn find(&self, object: &Value) -> Result<Option<Value>> {
        let (api, name) = of(&self.client().await?, object);
        match api.get_opt(&name).await {
            Ok(found) => Ok(found.map(serde_json::to_value).transpose()?),
            // A kind that is not served any more.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an object as another would.
    pub(crate) async fn make(&self, object: &Value) -> Result<()> {
        let (api, name) = of(&self.client().await?, object);
        api.patch(&name, &PatchParams::apply("another").force(), &Patch::Apply(object)).await?;
        if !object["status"].is_null() {
            let params = PatchParams::apply("another").force();
            api.patch_status(&name, &params, &Patch::Apply(object)).await?;
        }
        Ok(())
    }

    /// Fails if the API server was asked for something that it does not do.
    pub(crate) fn nothing_unsupported(&self) -> Result<()> {
        let small = self.api.small().context("small")?;
        let unsupported = small.requests().unsupported;
        ensure!(unsupported.is_empty(), "unsupported requests: {unsupported:#?}");
        Ok(())
    }
}

impl Said {
    /// Fails unless the command ended so.
    pub(crate) fn ended(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "expected exit code {code}: {self:#?}");
        Ok(self)
    }

    /// Fails unless this stands in what it said beside its result.
    pub(crate) fn told(&self, text: &str) -> Result<()> {
        ensure!(self.err.contains(text), "nothing of {text:?} in {}", self.err);
        Ok(())
    }

    /// Where a line begins so.
    pub(crate) fn line(&self, start: &str) -> Result<usize> {
        let found = self.err.lines().position(|line| line.starts_with(start));
        found.with_context(|| format!("no line {start:?} in {}", self.err))
    }
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command) -> Result<Said> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output =
        timeout(Duration::from_secs(60), command.output()).await.context("the command does not end")??;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("not text");
    Ok(Said { code: output.status.code(), out: text(output.stdout)?, err: text(output.stderr)? })
}

/// A client by this kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("client")
}

async fn run_all<K: Resource<DynamicType = ()>>(client: &Client) -> Result<()> {
    let resource = ApiResource::erase::<K>(&());
    let all = Api::<DynamicObject>::all_with(client.clone(), &resource);
    for found in all.list(&ListParams::default()).await?.items {
        let replicas = found.data["spec"]["replicas"].as_i64().unwrap_or(2);
        let generation = found.metadata.generation.unwrap_or_default();
        let status = json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "currentNumberScheduled": 2, "desiredNumberScheduled": 2,
            "updatedNumberScheduled": 2, "numberReady": 2, "numberMisscheduled": 0});
        if found.data["status"]["observedGeneration"] == generation {
            continue;
        }
        let namespace = found.namespace().unwrap_or_default();
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(&found.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn report(look: Result<()>) {
    if let Err(error) = look {
        eprintln!("controllers: {error:#}");
    }
}

fn of(client: &Client, object: &Value) -> (Api<DynamicObject>, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let metadata = &object["metadata"];
    let api = match metadata["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    (api, text(&metadata["name"]))
}
