//! Who may read a hub: clients with a certificate under the accepted root, and nobody else; the log says why.

use anyhow::{Result, ensure};
use e2e::authority::{Enrolment, Role};
use e2e::scenario::{self, SOON};
use e2e::{Daemon, Lab, eventually};

/// What every client of a hub may read.
const CONFIG: [&str; 2] = ["get", "cilium/cluster-config/paris"];

/// Fails unless the client is turned away, with these words in what it says. A client that fails for a reason of its own
/// (a missing file, say) is not turned away.
async fn refused(lab: &Lab, tls: Option<&std::path::Path>, words: &[&str]) -> Result<()> {
    let output = lab.etcdctl("paris", tls, &CONFIG).await?;
    let told = words.iter().all(|word| output.stderr.contains(word));
    ensure!(
        !output.success && output.stdout.is_empty() && told,
        "expected a refusal with {words:?}, got: {} {}",
        output.stdout,
        output.stderr
    );
    Ok(())
}

/// In TLS 1.3 a refused client learns only that its connection never works; what was wrong is in the hub's log.
const NO_CONNECTION: [&str; 1] = ["TransientFailure"];

/// Waits until the hub's log has a line that was not there and contains one of the words.
async fn log_says(lab: &Lab, since: usize, words: &[&str]) -> Result<()> {
    let hub = Daemon::hub("paris");
    eventually("the log says why", SOON, || async {
        let log = lab.log(&hub)?;
        let new = log.get(since..).unwrap_or_default();
        let found = new
            .lines()
            .any(|line| words.iter().all(|word| line.to_lowercase().contains(&word.to_lowercase())));
        ensure!(found, "no new line with {words:?} in:\n{new}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn members_read_strangers_do_not() -> Result<()> {
    let lab = scenario::running("foreign-client").await?;
    let hub = Daemon::hub("paris");
    for (cluster, role) in [("paris", Role::Admin), ("paris", Role::Local), ("berlin", Role::Remote)] {
        let output = lab.etcdctl("paris", Some(&lab.tls_dir(cluster, role)), &CONFIG).await?;
        ensure!(
            output.success && output.stdout.contains("cilium/cluster-config/paris"),
            "{role:?} of {cluster}: {} {}",
            output.stdout,
            output.stderr
        );
    }

    let everything = ["get", "--prefix", "--keys-only", "cilium/"];
    let output = lab.etcdctl("paris", Some(&lab.tls_dir("paris", Role::Admin)), &everything).await?;
    for key in ["cilium/.heartbeat", "cilium/state/services/v1/paris/shop/echo", "cilium/synced/paris/"] {
        ensure!(output.success && output.stdout.contains(key), "{key}: {} {}", output.stdout, output.stderr);
    }

    // A peer reads; it never writes.
    let peer = lab.tls_dir("berlin", Role::Remote);
    let key = "cilium/state/services/v1/paris/shop/planted";
    let put = lab.etcdctl("paris", Some(&peer), &["put", key, "x"]).await?;
    ensure!(!put.success, "a peer wrote: {}", put.stdout);
    let get = lab.etcdctl("paris", Some(&peer), &["get", key]).await?;
    ensure!(get.success && get.stdout.is_empty(), "the planted key is there: {} {}", get.stdout, get.stderr);

    // A certificate of another root, otherwise perfect: same cluster name and id, same role.
    let other = lab.new_authority("other-authority")?;
    let (passport, leaf) = (lab.scratch("other-passport"), lab.scratch("other-leaf"));
    other.enroll(&Enrolment::of_lab_cluster("berlin", 2), &passport)?;
    other.leaf(&passport, Role::Remote, "n1", &leaf)?;
    let before = lab.log(&hub)?.len();
    refused(&lab, Some(&leaf), &NO_CONNECTION).await?;
    log_says(&lab, before, &["refused", "root"]).await?;

    let before = lab.log(&hub)?.len();
    refused(&lab, None, &NO_CONNECTION).await?;
    log_says(&lab, before, &["refused", "certificate"]).await?;
    lab.finish().await
}

#[tokio::test]
async fn a_member_cannot_pass_as_the_local_administrator() -> Result<()> {
    let lab = scenario::running("foreign-admin").await?;
    // berlin's own intermediate may sign `admin-berlin`; at paris that is nobody.
    for (role, name) in [(Role::Admin, "admin-berlin"), (Role::Local, "local-berlin")] {
        let words = ["PermissionDenied", name, "counts only under this cluster's own passport"];
        refused(&lab, Some(&lab.tls_dir("berlin", role)), &words).await?;
    }
    lab.finish().await
}
