//! `meshctl ca request`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use pki::cluster_authority::PASSPORT_KEY;
use pki::durable::{self, Access};
use pki::key::PrivateKey;
use serde::Serialize;

use super::KeyType;
use super::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  meshctl ca request --out /etc/isthmus/paris\n  \
    # carry passport.csr to the authority, then there:\n  \
    meshctl ca enroll --dir /secure/authority --cluster paris --id 1 --pod-cidr 10.1.0.0/16 --csr passport.csr --out paris\n  \
    # carry paris/passport.crt and paris/ca.crt back to /etc/isthmus/paris")]
pub(crate) struct Args {
    /// Directory for the key, made with mode 0700; the key never leaves it
    #[arg(long, value_name = "CLUSTER_DIR")]
    out: PathBuf,
    /// Algorithm of the key
    #[arg(long, default_value = "p256")]
    key_type: KeyType,
    /// Form of the output
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// Holds the JSON form. STABLE FORMAT: fields are only added.
#[derive(Serialize)]
struct Report {
    key: PathBuf,
    request: PathBuf,
    spki_sha256: String,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    durable::private_dir(&args.out).with_context(|| format!("make {}", args.out.display()))?;
    let (key_path, request_path) = (args.out.join(PASSPORT_KEY), args.out.join(REQUEST));
    ensure!(
        !key_path.exists(),
        "{} exists; a passport's key is never replaced in place: use another directory, and move the three files over \
         once the new passport is there",
        key_path.display()
    );
    let key = PrivateKey::generate(args.key_type.into())?;
    key.write(&key_path)?;
    durable::write(&request_path, key.request()?.as_bytes(), Access::Everyone)
        .with_context(|| format!("write {}", request_path.display()))?;
    let report = Report { key: key_path, request: request_path, spki_sha256: key.spki().to_string() };
    args.output.print(&report, || {
        format!("made {} (stays here) and {} (to be signed)", report.key.display(), report.request.display())
    })
}

const REQUEST: &str = "passport.csr";
