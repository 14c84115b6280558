//! Messages, clients and servers of etcd's v3 API, generated from `proto/`.
//!
//! The `.proto` files are our own description of the published service names and field numbers.
//! `bytes` fields are [`bytes::Bytes`], so a received message is not copied again.

/// Key, value and event messages.
#[expect(missing_docs, reason = "generated; the fields are etcd's")]
#[allow(
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::map_err_ignore,
    clippy::or_fun_call,
    clippy::use_self,
    reason = "generated"
)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, responses and services.
#[expect(missing_docs, reason = "generated; the fields are etcd's")]
#[allow(
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::map_err_ignore,
    clippy::or_fun_call,
    clippy::use_self,
    reason = "generated"
)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Encoding, decoding and sizes of messages.
pub use prost::Message;
