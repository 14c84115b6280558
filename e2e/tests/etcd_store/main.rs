//! Two replicas of one hub on one etcd: the writer dies, etcd dies, both come back, and every watcher sees every change
//! exactly once and in order. On loopback, with mutual TLS, real processes, and Debian's `etcdctl` as the client.

mod ground;
mod watcher;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::authority::Role;
use e2e::eventually;
use serde_json::Value;

use self::ground::{Ground, Replica};
use self::watcher::{Watcher, counter};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn writer_and_etcd_die_and_every_watcher_sees_every_change_once_and_in_order() -> Result<()> {
    let mut ground = Ground::prepare().await?;
    let [mut a, mut b] = [ground.replica("a").await?, ground.replica("b").await?];
    ground.change_on();
    for replica in [&a, &b] {
        replica.ready().await?;
    }

    // Clients of another cluster: one at each replica, and one that knows both, as stock clients do.
    let (at_a, at_b) = (a.endpoint(), b.endpoint());
    let watchers = [
        ground.watch("at a", &at_a)?,
        ground.watch("at b", &at_b)?,
        ground.watch("at both", &format!("{at_a},{at_b}"))?,
    ];
    seen_further(&watchers, 20).await.context("at first")?;
    let leader = one_leader(&[&a, &b]).await?;

    // The writer dies without a word: the other takes over, and the dead one comes back as a standby.
    let (dead, other) = if leader == "a" { (&mut a, &mut b) } else { (&mut b, &mut a) };
    dead.kill().await?;
    eventually("the other replica writes", SOON, || async {
        let store = other.store().await?;
        ensure!(store["etcd"]["leads"] == true && store["etcd"]["leader"] == other.name(), "{store:#}");
        Ok(())
    })
    .await?;
    let alive: Vec<&Watcher> =
        watchers.iter().filter(|watcher| watcher.name() != format!("at {}", dead.name())).collect();
    seen_further(alive.iter().copied(), 10).await.context("after the writer's death")?;
    dead.start()?;
    dead.ready().await?;
    seen_further(&watchers, 10).await.context("after its return")?;

    // etcd dies: what is known is served, and said to be old; writes are refused in etcd's words.
    ground.etcd.kill().await?;
    for replica in [&a, &b] {
        eventually("the status says that it is old", SOON, || async {
            let store = replica.store().await?;
            let age = store["etcd"]["ageSeconds"].as_f64().context("an age")?;
            ensure!(store["etcd"]["connected"] == false && age > 2.0, "{store:#}");
            Ok(())
        })
        .await?;
        let read = ground
            .etcdctl(&replica.endpoint(), Role::Remote, &["get", "cilium/cluster-config/paris"])
            .await?;
        ensure!(read.success && read.text.contains("cilium/cluster-config/paris"), "{}", read.text);
        let page = replica.page("/metrics").await?;
        ensure!(page.contains("mesh_apiserver_store_connected 0"), "{page}");
        ensure!(page.contains("mesh_apiserver_store_age_seconds "), "{page}");
    }
    let put = ground.etcdctl(&a.endpoint(), Role::Admin, &["put", "test/key", "1"]).await?;
    ensure!(!put.success && put.text.contains("etcdserver: no leader"), "{}", put.text);

    // It is back: writes resume by themselves, those of clients too.
    ground.etcd.start_again()?;
    seen_further(&watchers, 10).await.context("after etcd's return")?;
    let put = ground.etcdctl(&a.endpoint(), Role::Admin, &["put", "test/key", "1"]).await?;
    ensure!(put.success, "{}", put.text);
    let read = ground.etcdctl(&a.endpoint(), Role::Admin, &["get", "test/key"]).await?;
    ensure!(read.text.contains("test/key\n1"), "what was written at a replica is read there: {}", read.text);

    // The writer is stopped as it stands, and goes on when another writes: it learns that it does not.
    let leader = one_leader(&[&a, &b]).await?;
    let (asleep, awake) = if leader == "a" { (&a, &b) } else { (&b, &a) };
    asleep.freeze()?;
    eventually("the other replica writes", SOON, || async {
        let store = awake.store().await?;
        ensure!(store["etcd"]["leads"] == true, "{store:#}");
        Ok(())
    })
    .await?;
    asleep.thaw()?;
    let writer = one_leader(&[&a, &b]).await?;
    ensure!(writer == awake.name(), "{writer} writes, not {}", awake.name());
    seen_further(&watchers, 5).await.context("after the writer woke up")?;

    // A writer that is asked to stop resigns.
    let leader = one_leader(&[&a, &b]).await?;
    let (leaving, staying) = if leader == "a" { (&mut a, &mut b) } else { (&mut b, &mut a) };
    leaving.stop().await?;
    ensure!(!leaving.log()?.contains("lease not revoked"), "it left without resigning");
    eventually("the other replica writes", SOON, || async {
        let store = staying.store().await?;
        ensure!(store["etcd"]["leads"] == true, "{store:#}");
        Ok(())
    })
    .await?;
    leaving.start()?;
    leaving.ready().await?;
    seen_further(&watchers, 5).await.context("after the writer resigned")?;

    // The source comes to rest; everybody ends with the same, by the same way.
    let last = ground.come_to_rest().await?;
    for watcher in &watchers {
        eventually("the last change", SOON, || async {
            ensure!(watcher.last_counter()? == Some(last), "{:?} of {last}", watcher.last_counter()?);
            Ok(())
        })
        .await
        .context(watcher.name().to_owned())?;
    }
    let truth = ground.truth().await?;
    ground.source_is(&truth)?;
    for watcher in &watchers {
        watcher.is_exactly(&truth)?;
    }
    let counters: Vec<u64> = truth.iter().filter_map(counter).collect();
    ensure!(counters.windows(2).all(|pair| pair[0] < pair[1]), "a value came back: {counters:?}");
    Ok(())
}

#[tokio::test]
async fn the_etcd_of_a_cluster_takes_its_hub_and_nobody_else() -> Result<()> {
    let ground = Ground::prepare().await?;
    let etcd = ground.etcd.endpoint();
    let own = ground.at_etcd(&etcd, &ground.tls("paris", Role::Store), "put").await?;
    ensure!(own.success, "{}", own.text);
    // A member of the same mesh, with any name that it likes; agents and administrators of the own cluster; the hub's
    // own certificate.
    for (cluster, role) in [
        ("berlin", Role::Store),
        ("berlin", Role::Etcd),
        ("berlin", Role::Admin),
        ("berlin", Role::Hub),
        ("paris", Role::Admin),
        ("paris", Role::Local),
        ("paris", Role::Hub),
    ] {
        let other = ground.at_etcd(&etcd, &ground.tls(cluster, role), "get").await?;
        ensure!(!other.success && !other.text.contains("secret"), "{role:?} of {cluster}: {}", other.text);
    }
    let log = ground.etcd.log()?;
    for reason in ["certificate signed by unknown authority", "client certificate authentication failed"] {
        ensure!(log.contains(reason), "etcd refused for another reason than {reason:?}: {log}");
    }
    // And a hub does not take an etcd for its own that is below the mesh root, whoever issued it.
    let refused = ground.refused_under_the_root().await?;
    ensure!(refused.contains("every member of the mesh could be the store"), "{refused}");
    Ok(())
}

/// Waits until each watcher has seen this many further values of the counter.
async fn seen_further<'a>(watchers: impl IntoIterator<Item = &'a Watcher>, more: usize) -> Result<()> {
    for watcher in watchers {
        let before = watcher.counters()?.len();
        eventually(&format!("{more} further changes {}", watcher.name()), SOON, || async {
            let now = watcher.counters()?.len();
            ensure!(now >= before + more, "{before}, then {now}; {}", watcher.errors());
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Waits until the replicas agree who writes.
async fn one_leader(replicas: &[&Replica]) -> Result<String> {
    eventually("the replicas agree on who writes", SOON, || async {
        let mut stores = Vec::new();
        for replica in replicas {
            stores.push(replica.store().await?);
        }
        let leaders: Vec<&Value> = stores.iter().map(|store| &store["etcd"]["leader"]).collect();
        let leads = stores.iter().filter(|store| store["etcd"]["leads"] == true).count();
        let one = leaders.first().and_then(|leader| leader.as_str()).context("nobody leads")?;
        ensure!(leads == 1 && leaders.iter().all(|leader| *leader == one), "{stores:#?}");
        Ok(one.to_owned())
    })
    .await
}
