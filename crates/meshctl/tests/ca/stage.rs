//! The binary in a directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one run of the binary gave.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// An authority in a directory of its own.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn meshctl(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl")).args(args).output().expect("meshctl runs");
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

impl Run {
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    pub(crate) fn says(&self, parts: &[&str]) -> &Self {
        let all = format!("{}{}", self.out, self.err);
        for part in parts {
            assert!(all.contains(part), "{part:?} expected in:\n{all}");
        }
        self
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().expect("a directory") };
        meshctl(&["ca", "init", "--dir", &stage.path("authority"), "--trust-domain", "mesh.example"])
            .expect(0);
        stage
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn enroll(&self, cluster: &str, id: &str, pods: &str, more: &[&str]) -> Run {
        let (authority, out) = (self.path("authority"), self.path(cluster));
        let args = [
            "ca",
            "enroll",
            "--dir",
            &authority,
            "--cluster",
            cluster,
            "--id",
            id,
            "--pod-cidr",
            pods,
            "--out",
            &out,
        ];
        meshctl(&[&args[..], more].concat())
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

impl Stage {
    /// A leaf of a cluster that was enrolled here.
    pub(crate) fn leaf(&self, cluster: &str, role: &str, out: &str) -> Run {
        let (home, out) = (self.path(cluster), self.path(out));
        meshctl(&["ca", "leaf", "--cluster-dir", &home, "--role", role, "--node", "n1", "--out", &out])
    }

    /// A command on the authority: `ca <words> --dir <authority>`.
    pub(crate) fn ca(&self, words: &[&str]) -> Run {
        let (authority, (command, more)) = (self.path("authority"), words.split_first().expect("a command"));
        meshctl(&[&["ca", command, "--dir", &authority], more].concat())
    }

    /// What a command gives as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> serde_json::Value {
        let run = self.ca(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&run.out)
            .unwrap_or_else(|error| panic!("{words:?}: {error}\n{}{}", run.out, run.err))
    }
}
