//! Objects into a cluster: first everything that could be wrong is looked at, then it is applied in order, then waited for.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::Api;
use kube::core::ApiResource;
use tokio::time::Instant;

use super::Args;
use super::checked::Checked;
use super::render::secrets::wanted;
use super::render::{HUB, MANAGER, Object, Part, Target, render};
use super::values::{Profile, ServiceType, Values};
use crate::cluster::apply::{Done, How, Owner};
use crate::cluster::{Cluster, cilium, until};
use crate::exit::{Refused, print};

pub(super) async fn run(args: &Args, mut values: Values, profile: Option<Profile>) -> Result<()> {
    let target = Target { namespace: &args.namespace, manager: MANAGER };
    Checked::new(values.clone())?;
    let cluster = args.access.connect().await?;
    let found = cluster.cilium(&args.cilium_namespace).await?;
    values.profile = cilium::choose(profile, &values.cluster, found.as_ref()).map_err(Refused)?;
    let values = Checked::new(values)?;
    eprintln!("installing on {} with profile {:?}", cluster.server, values.profile);

    let secrets = secrets(args, &values, target, &cluster).await?;
    let mut objects = render(&values, target);
    let programs = objects.iter().position(|object| object.part == Part::Program).unwrap_or(objects.len());
    objects.splice(programs..programs, secrets);
    let objects = leave_others(&cluster, objects).await?;

    let deadline = Instant::now() + args.timeout;
    let how = How { dry_run: args.dry_run, force: args.force_conflicts };
    let (mut created, mut changed) = (0, 0);
    let namespace_is_new = args.dry_run && is_absent(&cluster, objects.first()).await?;
    for object in &objects {
        let done = if namespace_is_new && object.namespace().is_some() {
            // Nothing can be tried in a namespace that is not there.
            Done::Created
        } else {
            cluster.apply(object, how).await?
        };
        created += usize::from(done == Done::Created);
        changed += usize::from(done == Done::Changed);
        eprintln!("{} {}{}", done.word(), object.describe(), if args.dry_run { " (not really)" } else { "" });
        if !args.dry_run && object.part == Part::Definition {
            established(&cluster, object, deadline).await?;
        }
        // Agents that find their hub ready are ready at once, and the reasons for what fails come one by one.
        if !args.dry_run && !args.no_wait && object.part == Part::Program {
            cluster.rolled_out(&object.resource, target.namespace, object.name(), deadline).await?;
        }
    }
    let unchanged = objects.len() - created - changed;
    let verb = if args.dry_run { "would be " } else { "" };
    print(&format!(
        "{} objects: {verb}{created} created, {changed} changed, {unchanged} unchanged",
        objects.len()
    ))?;
    if args.dry_run { Ok(()) } else { say_where(&cluster, &values, target).await }
}

/// The Secrets that are made of files. Fails if one that is needed is neither in a file nor in the cluster.
async fn secrets(
    args: &Args,
    values: &Checked,
    target: Target<'_>,
    cluster: &Cluster,
) -> Result<Vec<Object>> {
    let mut made = Vec::new();
    let mut missing = Vec::new();
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), target.namespace);
    for secret in wanted(values) {
        let from = args.secrets_from.as_deref();
        if let Some(object) = from.map(|from| secret.read(from, target)).transpose()?.flatten() {
            made.push(object);
        } else if !secret.optional && api.get_metadata_opt(&secret.name).await?.is_none() {
            let folder = from.map(|from| format!(", nor a folder {}", secret.folder(from).display()));
            missing.push(format!(
                "there is no Secret {}/{}{} with a leaf of the role {}",
                target.namespace,
                secret.name,
                folder.unwrap_or_default(),
                secret.role
            ));
        }
    }
    if !missing.is_empty() {
        let name = if missing.iter().any(|missing| missing.ends_with(" hub")) {
            format!(" (for the hub with --name {HUB}.{}.svc)", target.namespace)
        } else {
            String::new()
        };
        bail!(
            "{}; make them with `meshctl ca leaf --cluster-dir … --role ROLE --out DIR/ROLE`{name}, and name DIR with --secrets-from. \
             Nothing was changed",
            missing.join("; ")
        );
    }
    Ok(made)
}

/// Takes out a namespace and definitions that others manage. Refused if others manage anything else of the same name.
async fn leave_others(cluster: &Cluster, objects: Vec<Object>) -> Result<Vec<Object>> {
    let mut ours = Vec::new();
    let mut refused = Vec::new();
    for object in objects {
        let owner = cluster.owner(&object).await?;
        let Owner::Other(manager) = owner else {
            ours.push(object);
            continue;
        };
        let by = if manager.is_empty() { "by somebody else".to_owned() } else { format!("by {manager}") };
        match object.part {
            Part::Namespace | Part::Definition | Part::Written => {
                eprintln!("left as it is: {}, which is managed {by}", object.describe());
            }
            Part::Ground | Part::Program => {
                refused.push(format!(
                    "{} is there, and is managed {by}: remove it as it was made, or give --namespace and names of your own",
                    object.describe()
                ));
            }
        }
    }
    if refused.is_empty() { Ok(ours) } else { Err(Refused(refused).into()) }
}

async fn is_absent(cluster: &Cluster, namespace: Option<&Object>) -> Result<bool> {
    match namespace {
        Some(object) if object.part == Part::Namespace => Ok(cluster.owner(object).await? == Owner::Absent),
        _ => Ok(false),
    }
}

async fn established(cluster: &Cluster, definition: &Object, deadline: Instant) -> Result<()> {
    let api = cluster.api(&definition.resource, None);
    until(deadline, &definition.describe(), async || {
        let found = api.get(definition.name()).await?;
        let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |condition: &serde_json::Value| {
            condition["type"] == "Established" && condition["status"] == "True"
        };
        Ok((!conditions.iter().any(is)).then(|| "not served yet".to_owned()))
    })
    .await
}

/// Where peers reach the hub.
async fn say_where(cluster: &Cluster, values: &Checked, target: Target<'_>) -> Result<()> {
    let resource = ApiResource::erase::<Service>(&());
    let Some(service) = cluster.api(&resource, Some(target.namespace)).get_opt(HUB).await? else {
        return Ok(());
    };
    let port = &service.data["spec"]["ports"][0];
    let entrances = service.data["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let entrances: Vec<_> = entrances
        .iter()
        .filter_map(|entrance| entrance["ip"].as_str().or_else(|| entrance["hostname"].as_str()))
        .map(|host| format!("{host}:{}", port["port"]))
        .collect();
    print(&match values.hub.service.kind {
        ServiceType::LoadBalancer if entrances.is_empty() => format!(
            "peers reach the hub when its load balancer has an address: kubectl -n {} get service {HUB}",
            target.namespace
        ),
        ServiceType::LoadBalancer => format!("peers reach the hub at {}", entrances.join(", ")),
        ServiceType::NodePort => format!("peers reach the hub at port {} of each node", port["nodePort"]),
        ServiceType::ClusterIP => {
            format!(
                "peers reach the hub by a way of your own to {HUB}.{}.svc:{}",
                target.namespace, port["port"]
            )
        }
    })
}
