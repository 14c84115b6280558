//! Debian's etcdctl against our server.

use super::{Server, soon};
use crate::etcd_api::Grants;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

/// Runs etcdctl to its end and returns what it printed.
async fn etcdctl(server: &Server, arguments: &[&str]) -> String {
    let output = soon("etcdctl", command(server, arguments).output()).await;
    let output = output.expect("run etcdctl (Debian package etcd-client; `cargo xtask setup` installs it)");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "etcdctl {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    // Without a scheme: etcdctl 3.4 sends the whole URL as the authority of `endpoint status`, which hyper refuses.
    command.stderr(Stdio::piped()).arg(format!("--endpoints={}", server.address)).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_writes_and_deletes() {
    let server = Server::start(Grants::admin()).await;
    assert_eq!(etcdctl(&server, &["put", "cilium/a", "1"]).await, "OK\n");
    assert_eq!(etcdctl(&server, &["put", "cilium/b", "2"]).await, "OK\n");
    assert_eq!(etcdctl(&server, &["get", "--prefix", "cilium/"]).await, "cilium/a\n1\ncilium/b\n2\n");
    assert_eq!(etcdctl(&server, &["get", "--prefix", "", "--keys-only"]).await, "cilium/a\n\ncilium/b\n\n");
    assert_eq!(etcdctl(&server, &["get", "cilium/a", "--rev", "1"]).await, "");
    assert_eq!(
        etcdctl(&server, &["del", "--prefix", "cilium/", "--prev-kv"]).await,
        "2\ncilium/a\n1\ncilium/b\n2\n"
    );
    assert_eq!(etcdctl(&server, &["compaction", "3"]).await, "compacted revision 3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_status_health_and_members() {
    let server = Server::start(Grants::admin()).await;
    let status = etcdctl(&server, &["endpoint", "status"]).await;
    assert!(status.contains("3.5.21") && status.contains("true"), "{status}");
    let members = etcdctl(&server, &["member", "list"]).await;
    assert!(members.contains(&format!("{:x}, started, isthmus", server.store.member_id())), "{members}");
    assert_eq!(etcdctl(&server, &["lease", "list"]).await, "found 0 leases\n");
    // etcdctl reports health on the error stream.
    let output =
        soon("etcdctl", command(&server, &["endpoint", "health"]).output()).await.expect("run etcdctl");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("is healthy"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_keeps_shows_and_revokes_leases() {
    let server = Server::start(Grants::admin()).await;
    let granted = etcdctl(&server, &["lease", "grant", "300"]).await;
    let id = granted.split_whitespace().nth(1).expect("lease <id> granted").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(300s)\n"));
    assert_eq!(etcdctl(&server, &["put", "--lease", &id, "l/a", "1"]).await, "OK\n");
    assert_eq!(etcdctl(&server, &["lease", "list"]).await, format!("found 1 leases\n{id}\n"));
    let kept = etcdctl(&server, &["lease", "keep-alive", "--once", &id]).await;
    assert_eq!(kept, format!("lease {id} keepalived with TTL(300)\n"));
    let shown = etcdctl(&server, &["lease", "timetolive", "--keys", &id]).await;
    assert!(shown.starts_with(&format!("lease {id} granted with TTL(300s), remaining(")), "{shown}");
    assert!(shown.ends_with("attached keys([l/a])\n"), "{shown}");
    assert_eq!(etcdctl(&server, &["lease", "revoke", &id]).await, format!("lease {id} revoked\n"));
    assert_eq!(etcdctl(&server, &["get", "--prefix", "l/"]).await, "");
    assert_eq!(etcdctl(&server, &["lease", "list"]).await, "found 0 leases\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_from_a_revision_on() {
    let server = Server::start(Grants::admin()).await;
    server.store.put("w/a", "1").expect("put");
    let mut child =
        command(&server, &["watch", "--prefix", "w/", "--rev", "2"]).spawn().expect("run etcdctl");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line =
        async || soon("a line of etcdctl watch", lines.next_line()).await.expect("read").expect("a line");
    assert_eq!([line().await, line().await, line().await], ["PUT", "w/a", "1"]);
    server.store.put("w/b", "2").expect("put");
    assert_eq!([line().await, line().await, line().await], ["PUT", "w/b", "2"]);
    server.store.delete(&kvstore::KeyRange::key("w/a")).expect("delete");
    assert_eq!([line().await, line().await], ["DELETE", "w/a"]);
    child.kill().await.expect("end etcdctl");
}
