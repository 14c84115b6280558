//! Namespaces, veth pairs, addresses and routes, made with `ip -batch`: one child process a namespace.
//!
//! Every hop is routed. A node has a /32 and a /128 and one cable to `wan`; a pod has the same towards its node. So no
//! bridge has to learn anything, and all addresses work as soon as the last command has returned (duplicate address
//! detection is off).

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::addressing::{AddressPair, NodeNumber};
use crate::site::netns_path;

/// The pod's router, the same on every veth (it is only ever a neighbour).
const POD_GATEWAY_4: &str = "169.254.1.1";
const POD_GATEWAY_6: &str = "fe80::1";

/// Routers forward; nobody waits for duplicate address detection; asymmetric paths are not dropped.
const ROUTER: &str = "\
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for scope in all default; do
  echo 0 >/proc/sys/net/ipv4/conf/$scope/rp_filter
  echo 0 >/proc/sys/net/ipv6/conf/$scope/accept_dad
  echo 0 >/proc/sys/net/ipv4/conf/$scope/send_redirects
done
";
const HOST: &str = "\
for scope in all default; do echo 0 >/proc/sys/net/ipv6/conf/$scope/accept_dad; done
";

/// Holds what is needed to cable one node to `wan`.
#[derive(Clone, Debug)]
pub struct NodeCable {
    /// The node's namespace.
    pub netns: String,
    /// Its numbers, hence its addresses.
    pub number: NodeNumber,
}

/// Holds what is needed to cable one pod to its node.
#[derive(Clone, Debug)]
pub struct PodCable {
    /// The node's namespace.
    pub node_netns: String,
    /// The pod's namespace, made here.
    pub pod_netns: String,
    /// The pod's interface on the node, at most 15 characters.
    pub interface: String,
    /// The pod's addresses.
    pub addresses: AddressPair,
    /// The node's addresses: the source of what the node itself sends to the pod.
    pub node_addresses: AddressPair,
}

/// Makes the router and the nodes, and cables them. Fails with what the first failing command said.
pub fn lay_wan(wan: &str, nodes: &[NodeCable]) -> Result<()> {
    let mut names = format!("netns add {wan}\n");
    for node in nodes {
        names.push_str(&format!("netns add {}\n", node.netns));
    }
    ip_batch(&names).context("make namespaces")?;
    for node in nodes {
        run_in(&node.netns, ROUTER).with_context(|| format!("set up {}", node.netns))?;
    }
    let mut router = batch_open(ROUTER);
    for NodeCable { netns, number } in nodes {
        let (dev, node, gateway) = (number.wan_interface(), number.addresses(), number.gateway());
        let pods = number.pod_slice();
        router.push_str(&format!(
            "link add {dev} type veth peer name eth0 netns {netns}\n\
             link set {dev} up\n\
             addr add {}/32 dev {dev}\n\
             addr add {}/128 dev {dev} nodad\n\
             route add {}/32 dev {dev}\n\
             route add {}/128 dev {dev}\n\
             route add {} via {} dev {dev} onlink\n\
             route add {} via {} dev {dev} onlink\n",
            gateway.v4, gateway.v6, node.v4, node.v6, pods.v4, node.v4, pods.v6, node.v6,
        ));
    }
    router.push_str("EOF\n");
    run_in(wan, &router).context("cable the wan")?;
    for NodeCable { netns, number } in nodes {
        let (node, gateway) = (number.addresses(), number.gateway());
        let script = format!(
            "ip -batch - <<'EOF'\n\
             link set lo up\n\
             link set eth0 up\n\
             addr add {}/32 dev eth0\n\
             addr add {}/128 dev eth0 nodad\n\
             route add default via {} dev eth0 onlink\n\
             route add default via {} dev eth0 onlink\n\
             EOF\n",
            node.v4, node.v6, gateway.v4, gateway.v6
        );
        run_in(netns, &script).with_context(|| format!("cable {netns}"))?;
    }
    Ok(())
}

/// Makes a pod's namespace and its cable to the node.
pub fn lay_pod(cable: &PodCable) -> Result<()> {
    let PodCable { node_netns, pod_netns, interface, addresses, node_addresses } = cable;
    ip_batch(&format!("netns add {pod_netns}\n"))?;
    run_in(pod_netns, HOST)?;
    let node = format!(
        "ip -batch - <<'EOF'\n\
         link add {interface} type veth peer name eth0 netns {pod_netns}\n\
         addr add {POD_GATEWAY_4}/32 dev {interface}\n\
         addr add {POD_GATEWAY_6}/64 dev {interface} nodad\n\
         link set {interface} up\n\
         route add {}/32 dev {interface} src {}\n\
         route add {}/128 dev {interface} src {}\n\
         EOF\n",
        addresses.v4, node_addresses.v4, addresses.v6, node_addresses.v6
    );
    run_in(node_netns, &node)?;
    let pod = format!(
        "ip -batch - <<'EOF'\n\
         link set lo up\n\
         link set eth0 up\n\
         addr add {}/32 dev eth0\n\
         addr add {}/128 dev eth0 nodad\n\
         route add default via {POD_GATEWAY_4} dev eth0 onlink\n\
         route add default via {POD_GATEWAY_6} dev eth0 onlink\n\
         EOF\n",
        addresses.v4, addresses.v6
    );
    run_in(pod_netns, &pod)
}

/// Removes namespaces by name. Those that are gone already count as removed.
pub fn remove_netns(names: &[String]) -> Result<()> {
    for name in names.iter().filter(|name| netns_path(name).exists()) {
        let removed = ip_batch(&format!("netns del {name}\n"));
        // Another cleaner (the guardian, the next test) may have been faster.
        if netns_path(name).exists() {
            removed.with_context(|| format!("remove namespace {name}"))?;
        }
    }
    Ok(())
}

/// Runs a shell script in a namespace. Fails with what it wrote to standard error.
pub fn run_in(netns: &str, script: &str) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns_path(netns).display())).args(["--", "sh", "-eu"]);
    feed(command, script)
}

fn batch_open(prologue: &str) -> String {
    format!("{prologue}ip -batch - <<'EOF'\nlink set lo up\n")
}

fn ip_batch(lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    feed(command, lines)
}

/// Runs a command with this text on its standard input.
fn feed(mut command: Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program} (is it installed? is this root?)"))?;
    let mut stdin = child.stdin.take().context("standard input of the child")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    ensure!(
        output.status.success(),
        "{program}: {}: {}\ninput was:\n{input}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    written.with_context(|| format!("write to {program}"))
}
