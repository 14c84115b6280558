//! Enrolment refuses what would collide, and names both parties. (No lab: `meshctl` alone.)

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::authority::{Authority, Enrolment};
use e2e::programs::Programs;

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("isthmus-enrolment-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).context("create scratch directory")?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn authority(scratch: &Scratch) -> Result<Authority> {
    let authority = Authority::init(&Programs::locate()?.daemon("meshctl")?, &scratch.0.join("authority"))?;
    authority.enroll(&Enrolment::of_lab_cluster("paris", 1), &scratch.0.join("paris"))?;
    Ok(authority)
}

/// The refusal of a request, checked to name all of these, and to have made nothing.
fn refusal(scratch: &Scratch, authority: &Authority, request: &Enrolment, names: &[&str]) -> Result<()> {
    let out = scratch.0.join("refused");
    let Err(error) = authority.enroll(request, &out) else {
        anyhow::bail!("enrolled: {request:?}");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("exit code 3"), "a refusal by a rule has exit code 3: {text}");
    for name in names {
        ensure!(text.contains(name), "the refusal does not name {name}: {text}");
    }
    ensure!(!out.join("passport.crt").exists() && !out.join("tls.crt").exists(), "a passport was written");
    Ok(())
}

#[test]
fn overlapping_pod_blocks_are_refused() -> Result<()> {
    let scratch = Scratch::new("pods")?;
    let authority = authority(&scratch)?;
    let mut tokyo = Enrolment::of_lab_cluster("tokyo", 2);
    tokyo.pod_cidrs = vec!["10.1.128.0/17".into(), "fd00:10:2::/48".into()];
    refusal(&scratch, &authority, &tokyo, &["tokyo", "paris", "10.1.128.0/17", "10.1.0.0/16"])?;
    tokyo.pod_cidrs = vec!["10.2.0.0/16".into(), "fd00:10::/32".into()];
    refusal(&scratch, &authority, &tokyo, &["tokyo", "paris", "fd00:10::/32", "fd00:10:1::/48"])?;
    tokyo.pod_cidrs = vec!["10.2.0.0/16".into(), "fd00:10:2::/48".into()];
    authority.enroll(&tokyo, &scratch.0.join("tokyo"))
}

#[test]
fn a_pod_block_in_a_peers_node_block_is_refused() -> Result<()> {
    let scratch = Scratch::new("nodes")?;
    let authority = authority(&scratch)?;
    let mut tokyo = Enrolment::of_lab_cluster("tokyo", 2);
    tokyo.pod_cidrs = vec!["172.20.0.0/16".into()];
    refusal(&scratch, &authority, &tokyo, &["tokyo", "paris", "172.20.0.0/16", "172.20.1.0/24"])?;
    let mut tokyo = Enrolment::of_lab_cluster("tokyo", 2);
    tokyo.node_cidrs = vec!["172.20.1.0/24".into()];
    refusal(&scratch, &authority, &tokyo, &["tokyo", "paris", "172.20.1.0/24"])
}

#[test]
fn equal_names_and_ids_are_refused() -> Result<()> {
    let scratch = Scratch::new("names")?;
    let authority = authority(&scratch)?;
    refusal(&scratch, &authority, &Enrolment::of_lab_cluster("paris", 2), &["paris"])?;
    let mut tokyo = Enrolment::of_lab_cluster("tokyo", 2);
    tokyo.id = 1;
    refusal(&scratch, &authority, &tokyo, &["tokyo", "paris", "1"])
}

#[test]
fn equal_service_blocks_are_normal() -> Result<()> {
    let scratch = Scratch::new("services")?;
    let authority = authority(&scratch)?;
    let tokyo = Enrolment::of_lab_cluster("tokyo", 2);
    ensure!(tokyo.service_cidrs == Enrolment::of_lab_cluster("paris", 1).service_cidrs, "blocks differ");
    authority.enroll(&tokyo, &scratch.0.join("tokyo"))
}
