//! What a service says about sharing, by annotations. Cilium `pkg/annotation/{k8s,clustermesh}.go`.

use k8s_openapi::api::core::v1::Service;
use topology::record::local::Affinity;

use crate::finding::{Finding, Reason};

/// The annotation that makes a service global, and its older name.
pub const GLOBAL: [&str; 2] = ["service.cilium.io/global", "io.cilium/global-service"];
/// The annotation that keeps a global service's own backends at home, and its older name.
pub const SHARED: [&str; 2] = ["service.cilium.io/shared", "io.cilium/shared-service"];
/// The annotation that prefers some backends, and its older name.
pub const AFFINITY: [&str; 2] = ["service.cilium.io/affinity", "io.cilium/service-affinity"];
/// The annotation that asks for endpoint slices of other clusters' backends, or for none.
pub const SYNC_SLICES: &str = "service.cilium.io/global-sync-endpoint-slices";

/// How the annotations of services begin that the hub reads, or may come to read: a source need not keep others.
const READ: [&str; 5] =
    ["service.cilium.io/", "io.cilium/", "clustermesh.cilium.io/", "service.kubernetes.io/", "isthmus.dev/"];

/// Whether an annotation of a service may mean something to the hub.
pub fn is_read(name: &str) -> bool {
    READ.iter().any(|prefix| name.starts_with(prefix))
}

/// What a service says about sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// It uses backends of other clusters.
    pub global: bool,
    /// It offers its own backends to other clusters. Never true if it is not global.
    pub shared: bool,
    /// Which backends it prefers. `None` if it is not global.
    pub affinity: Affinity,
}

impl Sharing {
    /// Reads a service's annotations. The main name wins over the older one; case does not matter; what is not
    /// understood has the effect that stock Cilium gives it, and a finding.
    pub fn of(service: &Service, object: &str, findings: &mut Vec<Finding>) -> Self {
        let mut flag = |names: [&'static str; 2], default: bool| match value(service, names) {
            None => default,
            Some((_, text)) if text.eq_ignore_ascii_case("true") => true,
            Some((name, text)) => {
                if !text.eq_ignore_ascii_case("false") {
                    findings.push(
                        Finding::warning(Reason::AnnotationValue, object)
                            .found(format_args!("annotation {name} is {text:?}"))
                            .expected("true or false")
                            .so("treated as false, as Cilium does"),
                    );
                }
                false
            }
        };
        let global = flag(GLOBAL, false);
        let shared = flag(SHARED, true) && global;
        let affinity = match value(service, AFFINITY) {
            None => Affinity::None,
            Some((name, text)) => match text.to_ascii_lowercase().as_str() {
                "" | "none" => Affinity::None,
                "local" => Affinity::Local,
                "remote" => Affinity::Remote,
                _ => {
                    findings.push(
                        Finding::warning(Reason::AnnotationValue, object)
                            .found(format_args!("annotation {name} is {text:?}"))
                            .expected("local, remote or none")
                            .so("treated as none: all backends are used alike"),
                    );
                    Affinity::None
                }
            },
        };
        Self { global, shared, affinity: if global { affinity } else { Affinity::None } }
    }
}

/// Whether a service asks for endpoint slices of other clusters' backends, where it says anything about it. A value that
/// is not true in any case of letters is false.
pub fn asks_for_slices(service: &Service) -> Option<bool> {
    let text = service.metadata.annotations.as_ref()?.get(SYNC_SLICES)?;
    Some(text.eq_ignore_ascii_case("true"))
}

/// Whether a service is global by the main name of the annotation: for endpoint slices the older one does not count
/// (Cilium `pkg/clustermesh/endpointslicesync`).
pub fn is_global_by_main_name(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.and_then(|map| map.get(GLOBAL[0])).is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

fn value<'a>(service: &'a Service, names: [&'static str; 2]) -> Option<(&'static str, &'a str)> {
    let annotations = service.metadata.annotations.as_ref()?;
    names.into_iter().find_map(|name| annotations.get(name).map(|text| (name, text.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Sharing, usize) {
        let mut service = Service::default();
        let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        service.metadata.annotations = Some(annotations);
        let mut findings = Vec::new();
        let sharing = Sharing::of(&service, "Service shop/cart", &mut findings);
        (sharing, findings.len())
    }

    #[test]
    fn a_source_keeps_what_is_read() {
        assert!([GLOBAL, SHARED, AFFINITY].into_iter().flatten().all(is_read));
        assert!(!is_read("kubectl.kubernetes.io/last-applied-configuration"));
    }

    #[test]
    fn the_table_of_annotations() {
        let no = Sharing { global: false, shared: false, affinity: Affinity::None };
        let yes = Sharing { global: true, shared: true, affinity: Affinity::None };
        assert_eq!(read(&[]), (no, 0));
        assert_eq!(read(&[(GLOBAL[0], "true")]), (yes, 0));
        assert_eq!(read(&[(GLOBAL[0], "TRUE")]), (yes, 0));
        assert_eq!(read(&[(GLOBAL[1], "true")]), (yes, 0));
        assert_eq!(read(&[(GLOBAL[0], "false"), (GLOBAL[1], "true")]), (no, 0));
        assert_eq!(read(&[(GLOBAL[0], "yes")]), (no, 1));
        assert_eq!(read(&[(GLOBAL[0], "")]), (no, 1));
        assert_eq!(read(&[(GLOBAL[0], "true"), (SHARED[1], "false")]), (Sharing { shared: false, ..yes }, 0));
        assert_eq!(read(&[(SHARED[0], "true")]), (no, 0));
        let local = Sharing { affinity: Affinity::Local, ..yes };
        assert_eq!(read(&[(GLOBAL[0], "true"), (AFFINITY[0], "Local")]), (local, 0));
        assert_eq!(read(&[(GLOBAL[0], "true"), (AFFINITY[0], "none")]), (yes, 0));
        assert_eq!(read(&[(GLOBAL[0], "true"), (AFFINITY[0], "locla")]), (yes, 1));
        assert_eq!(read(&[(AFFINITY[0], "local")]), (no, 0));
    }
}
