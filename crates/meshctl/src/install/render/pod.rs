//! What the pods of hub and agents have in common.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference, ObjectFieldSelector, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};

use crate::install::checked::Checked;
use crate::install::values::{LogFormat, Resources};

pub(super) fn image(values: &Checked, program: &str) -> String {
    format!("{}/{program}:{}", values.image.registry, values.image.tag)
}

pub(super) fn pull_secrets(values: &Checked) -> Option<Vec<LocalObjectReference>> {
    let names = values.image.pull_secrets.iter();
    let secrets: Vec<_> = names.map(|name| LocalObjectReference { name: name.clone() }).collect();
    (!secrets.is_empty()).then_some(secrets)
}

pub(super) fn resources(from: &Resources) -> ResourceRequirements {
    let amounts = |amounts: &BTreeMap<String, String>| {
        amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))).collect()
    };
    ResourceRequirements {
        requests: Some(amounts(&from.requests)),
        limits: Some(amounts(&from.limits)),
        ..ResourceRequirements::default()
    }
}

pub(super) fn tolerations(from: &[Map<String, Value>]) -> Option<Vec<Toleration>> {
    let read = |toleration| super::toleration(toleration).expect("checked before");
    (!from.is_empty()).then(|| from.iter().map(read).collect())
}

pub(super) fn node_selector(from: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!from.is_empty()).then(|| from.clone())
}

pub(super) fn named(from: &str) -> Option<String> {
    (!from.is_empty()).then(|| from.to_owned())
}

pub(super) fn log_format(values: &Checked) -> String {
    let format = match values.log_format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    format!("--log-format={format}")
}

/// A variable with a field of the pod.
pub(super) fn field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

pub(super) fn secret(volume: &str, name: &str, optional: bool) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(name.to_owned()),
        default_mode: Some(0o440),
        optional: optional.then_some(true),
        ..SecretVolumeSource::default()
    };
    Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() }
}

/// Asks a page of the admin port; on the node itself where `host` says so.
pub(super) fn probe(path: &str, port: i32, host: Option<&str>, period_secs: i32, failures: i32) -> Probe {
    let get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(port),
        host: host.map(str::to_owned),
        ..HTTPGetAction::default()
    };
    Probe {
        http_get: Some(get),
        period_seconds: Some(period_secs),
        failure_threshold: Some(failures),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

pub(super) fn seccomp(kind: &str) -> SeccompProfile {
    SeccompProfile { type_: kind.to_owned(), ..SeccompProfile::default() }
}

/// No more rights than these capabilities, and no way to get more.
pub(super) fn confined(capabilities: &[&str]) -> SecurityContext {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            add: (!capabilities.is_empty()).then(|| names(capabilities)),
            drop: Some(names(&["ALL"])),
        }),
        ..SecurityContext::default()
    }
}
