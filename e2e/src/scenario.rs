//! What most scenarios begin with: three clusters in two regions, and one global service in all of them.
//!
//! | cluster | id | region | backends of `shop/echo` |
//! |---|---|---|---|
//! | paris | 1 | eu | echo-1 |
//! | berlin | 2 | eu | echo-1 |
//! | tokyo | 3 | asia | echo-1, echo-2 |

use std::time::Duration;

use anyhow::Result;

use crate::client::Client;
use crate::lab::{ClusterSpec, Lab, LabBuilder};
use crate::manifest::ServiceManifest;
use crate::tally::Tally;
use crate::wait::eventually;

/// The service's IPv4 address, equal in all clusters.
pub const VIP4: &str = "10.96.0.10";
/// The service's IPv6 address, equal in all clusters.
pub const VIP6: &str = "fd00:96::10";
/// HTTP over IPv4.
pub const URL4: &str = "http://10.96.0.10/";
/// HTTP over IPv6.
pub const URL6: &str = "http://[fd00:96::10]/";
/// HTTP to the IPv4 address from an IPv6 socket.
pub const URL_MAPPED: &str = "http://[::ffff:10.96.0.10]/";
/// UDP over IPv4.
pub const UDP4: &str = "10.96.0.10:90";
/// UDP over IPv6.
pub const UDP6: &str = "[fd00:96::10]:90";
/// UDP to the IPv4 address from an IPv6 socket.
pub const UDP_MAPPED: &str = "[::ffff:10.96.0.10]:90";
/// How long a change may take to be seen everywhere, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// The clusters and how many backends each has after [`populate`].
pub const BACKENDS: [(&str, usize); 3] = [("paris", 1), ("berlin", 1), ("tokyo", 2)];
/// The clusters.
pub const CLUSTERS: [&str; 3] = ["paris", "berlin", "tokyo"];

/// The three clusters, empty.
pub fn three_clusters(name: &str) -> LabBuilder {
    Lab::builder(name)
        .cluster(ClusterSpec::new("paris", 1).region("eu"))
        .cluster(ClusterSpec::new("berlin", 2).region("eu"))
        .cluster(ClusterSpec::new("tokyo", 3).region("asia"))
}

/// The service `shop/echo`: global, dual-stack, HTTP and UDP.
pub fn echo() -> ServiceManifest {
    ServiceManifest::new("shop", "echo").vip4(VIP4).vip6(VIP6).port(80).udp_port(90).global()
}

/// Puts the service and its backends into all clusters.
pub async fn populate(lab: &mut Lab) -> Result<()> {
    for (cluster, backends) in BACKENDS {
        lab.service(cluster, echo())?;
        for number in 1..=backends {
            start_backend(lab, cluster, &format!("echo-{number}")).await?;
        }
    }
    Ok(())
}

/// Starts one backend of the service on the first node of a cluster.
pub async fn start_backend(lab: &mut Lab, cluster: &str, name: &str) -> Result<()> {
    let pod = lab.pod(cluster, "n1", "shop", name).label("app", "echo");
    pod.serves_http(8080).serves_udp(9000).start().await.map(drop)
}

/// The three clusters with the service, and the knowledge that a client in each is answered by all of them.
pub async fn running(name: &str) -> Result<Lab> {
    let mut lab = three_clusters(name).start().await?;
    populate(&mut lab).await?;
    for cluster in CLUSTERS {
        answered_by(&lab.client(cluster, "n1")?, &CLUSTERS).await?;
    }
    Ok(lab)
}

/// Waits until a client is answered over IPv4 and IPv6 by exactly these clusters, without an error.
pub async fn answered_by(client: &Client, clusters: &[&str]) -> Result<Tally> {
    let why = format!("a client in {} is answered by {clusters:?}", client.place().netns);
    eventually(&why, SOON, || async {
        let mut last = Tally::default();
        for url in [URL4, URL6] {
            // With 4 backends, 60 answers miss one that is there once in 30 million times.
            last = client.http(url).count(60).timeout(Duration::from_millis(500)).run().await?;
            last.expect_clusters(clusters)?;
        }
        Ok(last)
    })
    .await
}
