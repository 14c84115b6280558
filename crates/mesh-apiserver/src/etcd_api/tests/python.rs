//! The Python client `etcd3` against our server (`tests/etcd3_client.py` says how to install it).
//!
//! Without TLS: that client's gRPC is built on BoringSSL, which refuses a chain whose name constraints hold addresses,
//! as a passport's do.

use super::{Server, soon};
use crate::etcd_api::Grants;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ETCD3_PYTHON must name a Python interpreter with the package etcd3"]
async fn the_python_client_works_unchanged() {
    let server = Server::start(Grants::admin()).await;
    let python = std::env::var_os("ETCD3_PYTHON").expect("ETCD3_PYTHON names an interpreter");
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd3_client.py")).kill_on_drop(true);
    command.args([server.address.ip().to_string(), server.address.port().to_string()]);
    let output = soon("the Python client", command.output()).await.expect("the interpreter runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.ends_with("ok\n"), "{text}");
}
