//! `cilium/state/endpointslices/v1/<cluster>/<ns>/<slice>`: one EndpointSlice of a global service.
//! Cilium `pkg/clustermesh/types/endpointslice/endpointslice.go` and its `generated.proto`.
//!
//! The value is one zstd frame of a proto2 message. Our messages are plain prost structs: a proto2 field that
//! Go always writes is `required` here, and a map is a list of entries, sorted by key, in which key and value
//! are always written, so that our bytes are those of the stock encoder.

use std::io::Read;

use prost::Message;

use super::{Origin, Rejected, expect_equal, expect_id};

/// What a value may decompress to, in bytes: the limit of later stock readers.
pub const MAX_DECOMPRESSED: u64 = 16 << 20;

/// An endpoint slice in its wire form. STABLE FORMAT.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "members are named and meant as in Kubernetes' EndpointSlice")]
pub struct SliceValue {
    #[prost(string, required, tag = "1")]
    pub cluster: String,
    #[prost(uint32, required, tag = "2")]
    pub cluster_id: u32,
    #[prost(string, required, tag = "3")]
    pub namespace: String,
    #[prost(string, required, tag = "4")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub labels: Vec<MapEntry>,
    #[prost(message, repeated, tag = "6")]
    pub annotations: Vec<MapEntry>,
    #[prost(string, required, tag = "7")]
    pub address_type: String,
    #[prost(message, repeated, tag = "8")]
    pub endpoints: Vec<Endpoint>,
    #[prost(message, repeated, tag = "9")]
    pub ports: Vec<EndpointPort>,
}

/// An entry of a map of texts.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "key and value of a map")]
pub struct MapEntry {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// One endpoint of a slice.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "members are named and meant as in Kubernetes' EndpointSlice")]
pub struct Endpoint {
    #[prost(string, repeated, tag = "1")]
    pub addresses: Vec<String>,
    #[prost(message, required, tag = "2")]
    pub conditions: Conditions,
    #[prost(string, optional, tag = "3")]
    pub hostname: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub deprecated_topology: Vec<MapEntry>,
    #[prost(string, optional, tag = "6")]
    pub node_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub zone: Option<String>,
    #[prost(message, optional, tag = "8")]
    pub hints: Option<Hints>,
}

/// Whether an endpoint takes traffic. Unset means: ready, serving, not terminating.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "members are named and meant as in Kubernetes' EndpointSlice")]
pub struct Conditions {
    #[prost(bool, optional, tag = "1")]
    pub ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    pub terminating: Option<bool>,
}

/// The zones that an endpoint is meant for.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "members are named and meant as in Kubernetes' EndpointSlice")]
pub struct Hints {
    #[prost(message, repeated, tag = "1")]
    pub for_zones: Vec<ForZone>,
}

/// One zone that an endpoint is meant for.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ForZone {
    /// The zone's name.
    #[prost(string, required, tag = "1")]
    pub name: String,
}

/// One port of a slice.
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(missing_docs, reason = "members are named and meant as in Kubernetes' EndpointSlice")]
pub struct EndpointPort {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    pub port: Option<i32>,
    #[prost(string, optional, tag = "4")]
    pub app_protocol: Option<String>,
}

impl SliceValue {
    /// The value: the message, compressed. The message's bytes are the stock ones; the frame need not be.
    pub fn encode(&self) -> Vec<u8> {
        compress(&self.encode_to_vec())
    }

    /// Reads the record with key suffix `suffix` of the cluster `origin`.
    ///
    /// Fails if the value does not decompress or decode, if it names another slice, cluster or id, or if its
    /// addresses are not of the family that it says.
    pub fn decode_record(origin: &Origin, suffix: &str, value: &[u8]) -> Result<Self, Rejected> {
        let message = decompress(value).map_err(Rejected::Compression)?;
        let slice = Self::decode(message.as_slice()).map_err(Rejected::Protobuf)?;
        expect_equal("cluster", &slice.cluster, origin.cluster.as_str())?;
        expect_equal("namespace/name", &format!("{}/{}", slice.namespace, slice.name), suffix)?;
        expect_id("clusterID", slice.cluster_id, origin)?;
        for text in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            let of_family = match slice.address_type.as_str() {
                "IPv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
                "IPv6" => text.parse::<std::net::Ipv6Addr>().is_ok_and(|a| a.to_ipv4_mapped().is_none()),
                _ => false,
            };
            if !of_family {
                return Err(Rejected::malformed("addresses", text, "addresses of addressType IPv4 or IPv6"));
            }
        }
        Ok(slice)
    }
}

/// The message inside a value. Fails if it is no zstd frame, or larger than [`MAX_DECOMPRESSED`].
pub fn decompress(value: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::new(value)?;
    decoder.window_log_max(24)?;
    let mut message = Vec::new();
    decoder.take(MAX_DECOMPRESSED + 1).read_to_end(&mut message)?;
    if message.len() as u64 > MAX_DECOMPRESSED {
        return Err(std::io::Error::other("the decompressed value is too large"));
    }
    Ok(message)
}

fn compress(message: &[u8]) -> Vec<u8> {
    let frame = || -> std::io::Result<Vec<u8>> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        std::io::Write::write_all(&mut encoder, message)?;
        encoder.finish()
    };
    frame().expect("compressing into memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused() {
        let bomb = compress(&vec![0; usize::try_from(MAX_DECOMPRESSED).expect("fits") + 1]);
        assert!(bomb.len() < 8192, "{}", bomb.len());
        assert!(decompress(&bomb).is_err());
        assert!(decompress(b"not zstd").is_err());
    }
}
