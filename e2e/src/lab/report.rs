//! What a lab prints for people: how to look inside, and what happened when it failed.

use std::fs;

use super::Lab;
use crate::site::netns_path;

/// How many of the last lines of a daemon's log a failure prints.
const TAIL: usize = 30;

impl Lab {
    /// How to enter each node, where the logs are, how to remove the lab.
    pub fn how_to_look_inside(&self) -> String {
        let id = self.site.id();
        let mut text = format!("lab {id} ({}) in {}\n", self.name, self.site.dir().display());
        for (name, cluster) in &self.clusters {
            for node in cluster.nodes.values() {
                text.push_str(&format!(
                    "  node  {:<16} nsenter --net={}\n",
                    node.netns,
                    netns_path(&node.netns).display()
                ));
            }
            for (pod_name, pod) in &cluster.pods {
                let node = &pod.manifest.node;
                text.push_str(&format!(
                    "  pod   {:<16} sh -c 'echo $$ >{}/cgroup.procs; exec nsenter --net={}'\n",
                    format!("{name}/{pod_name}"),
                    self.site.pods_cgroup(name, node).display(),
                    netns_path(&pod.netns()).display()
                ));
            }
        }
        for (daemon, running) in &self.daemons {
            let state = running.pid().map_or_else(|| "ended".to_owned(), |pid| format!("pid {pid}"));
            let (log, line) = (running.log().display(), running.command_line());
            text.push_str(&format!("  {daemon}: {state}, log {log}\n      {line}\n"));
        }
        text.push_str(&format!("  remove it: cargo run -p e2e --bin lab-guardian -- clean {id}\n"));
        text
    }

    /// How to look inside, the cuts, and the end of each daemon's log.
    pub fn failure_report(&self) -> String {
        let mut text = format!("--- lab {} failed ---\n{}", self.name, self.how_to_look_inside());
        if !self.cuts.is_empty() {
            let cuts: Vec<String> = self.cuts.iter().map(ToString::to_string).collect();
            text.push_str(&format!("  cut: {}\n", cuts.join(", ")));
        }
        for (daemon, running) in &self.daemons {
            let log = fs::read(running.log()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
            text.push_str(&format!("--- end of {daemon} log ---\n{}\n", tail.join("\n")));
        }
        if !self.keep {
            text.push_str("(set ISTHMUS_LAB_KEEP=1 to leave a lab running; logs of this one stay)\n");
        }
        text
    }
}
