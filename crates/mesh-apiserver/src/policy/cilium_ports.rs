//! `toPorts` and `icmps` of Cilium's policies.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use super::{Broken, is_port_name};

/// An element of `toPorts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToPorts {
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    port: String,
    end_port: Option<i64>,
    protocol: String,
}

/// An element of `icmps`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Icmps {
    fields: Option<Vec<Field>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Field {
    #[serde(default)]
    family: String,
    #[serde(rename = "type")]
    kind: Option<IntOrString>,
}

impl ToPorts {
    pub(super) fn check(&self, path: &str) -> Result<(), Broken> {
        let count = self.ports.iter().flatten().count();
        if count > MOST {
            return Err(Broken::new(
                format_args!("{path}.ports"),
                format_args!("{count} ports, expected at most {MOST}"),
            ));
        }
        for (at, port) in self.ports.iter().flatten().enumerate() {
            port.check(&format!("{path}.ports[{at}]"))?;
        }
        Ok(())
    }
}

impl Port {
    fn check(&self, path: &str) -> Result<(), Broken> {
        let Self { port, end_port, protocol } = self;
        let extended = EXTENDED.contains(&protocol.as_str());
        if !extended && !matches!(protocol.as_str(), "" | "ANY" | "TCP" | "UDP" | "SCTP") {
            let expected =
                format_args!("{protocol:?}, expected ANY, TCP, UDP, SCTP or {}", EXTENDED.join(", "));
            return Err(Broken::new(format_args!("{path}.protocol"), expected));
        }
        let number = port.parse::<u16>().ok();
        let fault = match (port.as_str(), extended) {
            ("" | "0", true) => None,
            (_, true) => Some("this protocol has no ports"),
            ("", false) => Some("there is none"),
            _ if number.is_none() && !is_port_name(port) => {
                Some("expected 0 to 65535, or the name of a port")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Broken::new(format_args!("{path}.port"), format_args!("{port:?}: {fault}")));
        }
        match end_port {
            Some(end) if !(0..=65535).contains(end) => {
                Err(Broken::new(format_args!("{path}.endPort"), format_args!("{end}, expected 0 to 65535")))
            }
            _ => Ok(()),
        }
    }
}

impl Icmps {
    pub(super) fn check(&self, path: &str) -> Result<(), Broken> {
        let fields = self.fields.iter().flatten();
        let count = fields.clone().count();
        if count > MOST {
            return Err(Broken::new(
                format_args!("{path}.fields"),
                format_args!("{count} types, expected at most {MOST}"),
            ));
        }
        for (at, field) in fields.enumerate() {
            let path = format!("{path}.fields[{at}]");
            let names = match field.family.as_str() {
                "" | "IPv4" => &V4[..],
                "IPv6" => &V6[..],
                other => {
                    return Err(Broken::new(
                        format_args!("{path}.family"),
                        format_args!("{other:?}, expected IPv4 or IPv6"),
                    ));
                }
            };
            let known = match &field.kind {
                Some(IntOrString::Int(number)) => (0..=255).contains(number),
                Some(IntOrString::String(text)) => {
                    names.contains(&text.as_str()) || text.parse::<u8>().is_ok()
                }
                None => false,
            };
            if !known {
                let found = match &field.kind {
                    Some(IntOrString::Int(number)) => number.to_string(),
                    Some(IntOrString::String(text)) => format!("{text:?}"),
                    None => "nothing".to_owned(),
                };
                let family = if field.family.is_empty() { "IPv4" } else { &field.family };
                return Err(Broken::new(
                    format_args!("{path}.type"),
                    format_args!("{found} is no type of ICMP over {family}"),
                ));
            }
        }
        Ok(())
    }
}

/// Ports or types in one element, Cilium's `maxPorts` and `maxICMPFields`.
const MOST: usize = 40;
/// Protocols without ports that Cilium can be told to know.
const EXTENDED: [&str; 7] = ["VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"];
/// Names of types, Cilium `pkg/policy/api/icmp.go`.
const V4: [&str; 14] = [
    "EchoReply",
    "DestinationUnreachable",
    "Redirect",
    "Echo",
    "EchoRequest",
    "RouterAdvertisement",
    "RouterSelection",
    "TimeExceeded",
    "ParameterProblem",
    "Timestamp",
    "TimestampReply",
    "Photuris",
    "ExtendedEchoRequest",
    "ExtendedEchoReply",
];
/// As above, over IPv6.
const V6: [&str; 27] = [
    "DestinationUnreachable",
    "PacketTooBig",
    "TimeExceeded",
    "ParameterProblem",
    "EchoRequest",
    "EchoReply",
    "MulticastListenerQuery",
    "MulticastListenerReport",
    "MulticastListenerDone",
    "RouterSolicitation",
    "RouterAdvertisement",
    "NeighborSolicitation",
    "NeighborAdvertisement",
    "RedirectMessage",
    "RouterRenumbering",
    "ICMPNodeInformationQuery",
    "ICMPNodeInformationResponse",
    "InverseNeighborDiscoverySolicitation",
    "InverseNeighborDiscoveryAdvertisement",
    "HomeAgentAddressDiscoveryRequest",
    "HomeAgentAddressDiscoveryReply",
    "MobilePrefixSolicitation",
    "MobilePrefixAdvertisement",
    "DuplicateAddressRequestCodeSuffix",
    "DuplicateAddressConfirmationCodeSuffix",
    "ExtendedEchoRequest",
    "ExtendedEchoReply",
];
