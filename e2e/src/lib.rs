//! The lab: clusters as network namespaces on one machine, and the tests that run in it.
//!
//! ```text
//!            im<id>-wan            one router; cuts are nft rules here
//!         c1n1 |      | c2n1       one veth a node
//!   im<id>-paris-n1  im<id>-tokyo-n1      node: mesh-apiserver (first node), mesh-agent
//!     p10 |    | p11
//!   …-client  …-echo-1             pods: a namespace, an address of the node's slice, a process
//! ```
//!
//! Nothing here is simulated except the cable: the daemons are the real binaries as child processes, certificates come
//! from `meshctl`, packets cross real veth pairs, and the backends are real HTTP and UDP servers that say who they are.
//! Several labs can run at once with the same addresses, because no namespace is connected to the machine's own.
//!
//! A test reads as its scenario:
//!
//! ```no_run
//! # async fn scenario() -> anyhow::Result<()> {
//! use e2e::{ClusterSpec, Lab, Link, ServiceManifest};
//!
//! let mut lab = Lab::builder("shop")
//!     .cluster(ClusterSpec::new("paris", 1).region("eu"))
//!     .cluster(ClusterSpec::new("tokyo", 2).region("asia"))
//!     .start()
//!     .await?;
//! for cluster in ["paris", "tokyo"] {
//!     lab.service(cluster, ServiceManifest::new("shop", "echo").vip4("10.96.0.10").port(80).global())?;
//!     lab.pod(cluster, "n1", "shop", "echo-1").label("app", "echo").serves_http(8080).start().await?;
//! }
//! let tally = lab.client("paris", "n1")?.http("http://10.96.0.10/").count(100).run().await?;
//! lab.cut(Link::data("paris", "tokyo"))?;
//! println!("{tally}");
//! lab.finish().await
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`lab`] | [`Lab`] and its builder: what a test holds |
//! | [`addressing`], [`network`], [`path`] | who has which address; namespaces, veths, routes; cuts |
//! | [`site`], [`remains`], [`guardian`] | where a lab keeps its things; how they are removed, also when the test is killed |
//! | [`process`], [`programs`], [`authority`], [`peer_config`] | child processes, where their binaries are, certificates, client configs |
//! | [`manifest`], [`endpoints`] | Kubernetes YAML, and the endpoint slices that follow from pods and services |
//! | [`client`], [`tally`], [`wait`], [`status`] | requests and load from a pod, who answered, waiting for a condition, reading `/status` |
//! | [`scenario`] | three clusters and a global service, what most tests begin with |
//! | [`demo`], [`bench`](mod@bench) | the demo and the benchmarks of a whole mesh (`lab-demo`, `lab-bench`) |
//! | [`loopback`] | ports, and an etcd, on the machine's own loopback |
//! | [`pod_program`], [`http`] | what runs inside a pod |
//! | [`kube_api`] | a Kubernetes API server: a small one of our own, or a real one (`lab-kube-api`) |

pub mod addressing;
pub mod authority;
pub mod bench;
pub mod client;
pub mod demo;
pub mod endpoints;
pub mod guardian;
pub mod http;
pub mod kube_api;
pub mod lab;
pub mod loopback;
pub mod manifest;
pub mod network;
pub mod path;
pub mod peer_config;
pub mod pod_program;
pub mod process;
pub mod programs;
pub mod remains;
pub mod scenario;
pub mod site;
pub mod status;
pub mod tally;
pub mod wait;

pub use client::{Client, Load};
pub use lab::{ClusterSpec, Lab, LabBuilder};
pub use manifest::ServiceManifest;
pub use path::Link;
pub use process::Daemon;
pub use tally::{Answer, Speaker, Tally};
pub use wait::eventually;
