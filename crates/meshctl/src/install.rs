//! `meshctl install`: everything that a cluster needs to be a member, rendered and applied.
//!
//! * [`values`]: what can be said, the same as for the Helm chart. [`checked`]: values that can be installed.
//! * [`render`]: from values to objects; pure.
//! * [`mod@print`]: objects as YAML or JSON. `apply`: objects into a cluster.

mod apply;
pub mod checked;
pub mod print;
pub mod render;
pub mod values;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use self::checked::Checked;
use self::print::Form;
use self::render::{MANAGER, Target};
use self::values::{Cloud, Profile, ServiceType, Values};
use crate::cluster::access::Access;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    meshctl install --cluster-name paris --cluster-id 1 --image-registry registry.example/isthmus --secrets-from ./paris\n  \
    meshctl install --values paris.yaml --dry-run\n  \
    meshctl install --values paris.yaml -o yaml > paris/isthmus.yaml\n\n\
    Values are those of the Helm chart (deploy/chart/values.yaml). Flags win over the file. docs/install.md tells the rest.")]
pub(crate) struct Args {
    /// Name of the cluster, unique in the mesh (cluster.name)
    #[arg(long)]
    cluster_name: Option<String>,
    /// Id of the cluster, unique in the mesh (cluster.id)
    #[arg(long)]
    cluster_id: Option<u16>,
    /// Where images were pushed to, such as registry.example/isthmus (image.registry)
    #[arg(long)]
    image_registry: Option<String>,
    /// Tag of the images (image.tag)
    #[arg(long)]
    image_tag: Option<String>,
    /// Who balances connections to remote backends [default: cilium where Cilium is found, else agent]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// How peers reach the hub (hub.service.type)
    #[arg(long, value_enum)]
    service_type: Option<ServiceType>,
    /// Whose load balancer it is, which keeps it internal (hub.service.cloud)
    #[arg(long, value_enum)]
    cloud: Option<Cloud>,
    /// Member of the etcd behind the hub, https://HOST:PORT; more with commas (hub.store.etcd) [default: the embedded store]
    #[arg(long, value_delimiter = ',')]
    etcd: Vec<String>,
    /// File of values, YAML or JSON
    #[arg(short = 'f', long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Namespace of everything
    #[arg(short, long, default_value = "isthmus")]
    namespace: String,
    /// Folder with certificates in hub/, local/, remote/ and store/, each as `meshctl ca leaf --out` writes it: they become
    /// Secrets. Without it the Secrets are expected to be there
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    secrets_from: Option<PathBuf>,
    /// Print the objects and ask no cluster; Secrets are not among them
    #[arg(short, long, value_name = "FORM", conflicts_with = "dry_run")]
    output: Option<Form>,
    /// Let the API server check everything, say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take over fields that others wrote
    #[arg(long)]
    force_conflicts: bool,
    /// Do not wait until the programs are ready
    #[arg(long)]
    no_wait: bool,
    /// How long to wait: a number and s, m or h
    #[arg(long, default_value = "5m", value_parser = parse_wait)]
    timeout: Duration,
    /// Where Cilium's ConfigMap cilium-config is, if it is there
    #[arg(long, default_value = "kube-system")]
    cilium_namespace: String,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (values, profile) = args.read()?;
    if let Some(form) = args.output {
        let target = Target { namespace: &args.namespace, manager: MANAGER };
        let text = print::print(&render::render(&Checked::new(values)?, target), form)?;
        return crate::exit::print(text.trim_end());
    }
    crate::cluster::block_on(apply::run(args, values, profile))
}

impl Args {
    /// The values of file and flags, and the profile if either names one.
    fn read(&self) -> Result<(Values, Option<Profile>)> {
        let mut values = Values::default();
        let mut profile = None;
        if let Some(path) = &self.values {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let not_values = || format!("{}: not values of this version", path.display());
            let plain: serde_json::Value = serde_yaml_ng::from_str(&text).with_context(not_values)?;
            values = serde_yaml_ng::from_str(&text).with_context(not_values)?;
            profile = plain.get("profile").map(|_named| values.profile);
        }
        if let Some(name) = &self.cluster_name {
            values.cluster.name.clone_from(name);
        }
        values.cluster.id = self.cluster_id.unwrap_or(values.cluster.id);
        if let Some(registry) = &self.image_registry {
            values.image.registry.clone_from(registry);
        }
        if let Some(tag) = &self.image_tag {
            values.image.tag.clone_from(tag);
        }
        profile = self.profile.or(profile);
        values.profile = profile.unwrap_or_default();
        values.hub.service.kind = self.service_type.unwrap_or(values.hub.service.kind);
        values.hub.service.cloud = self.cloud.unwrap_or(values.hub.service.cloud);
        if !self.etcd.is_empty() {
            values.hub.store.etcd.clone_from(&self.etcd);
        }
        Ok((values, profile))
    }
}

/// Reads `90s`, `5m` or `1h`; up to a day.
pub(crate) fn parse_wait(text: &str) -> Result<Duration, String> {
    let fail = || format!("{text:?}: expected a number and s, m or h, up to 24h, such as 5m");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(fail()),
    };
    let number: u64 = text.get(..text.len() - 1).unwrap_or_default().parse().map_err(|_error| fail())?;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= 24 * 3600);
    seconds.map(Duration::from_secs).ok_or_else(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_a_unit_and_a_bound() {
        assert_eq!(parse_wait("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_wait("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "m", "5", "25h", "-1s", "é", "99999999999999999999h"] {
            assert!(parse_wait(bad).is_err(), "{bad}");
        }
    }
}
