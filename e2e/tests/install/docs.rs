//! `docs/install.md` as a new user tries it: every block of commands marked `sh`, one after the other, in one folder.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::ground::{Ground, Said, run};
use super::hub::set;

const GUIDE: &str = include_str!("../../../docs/install.md");

/// The blocks of commands, without the indentation of the list that they stand in.
fn blocks(text: &str) -> VecDeque<String> {
    let mut blocks = VecDeque::new();
    let mut open: Option<(usize, String)> = None;
    for line in text.lines() {
        let fence = line.trim_start();
        match &mut open {
            Some(_) if fence == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indentation, block)) => {
                block.push_str(line.get(*indentation..).unwrap_or_default());
                block.push('\n');
            }
            None if fence == "```sh" => open = Some((line.len() - fence.len(), String::new())),
            None => {}
        }
    }
    blocks
}

/// Runs the next block, which must have this in it.
async fn next(ground: &Ground, blocks: &mut VecDeque<String>, wanted: &str) -> Result<Said> {
    let block = blocks.pop_front().with_context(|| format!("no block with {wanted}"))?;
    ensure!(block.contains(wanted), "expected a block with {wanted}, found:\n{block}");
    let folder = ground.path("tried");
    std::fs::create_dir_all(&folder)?;
    let meshctl = ground.program("meshctl")?;
    let mut path = meshctl.parent().context("a folder")?.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-euxc", &block]).current_dir(folder).env("PATH", path);
    command.env("KUBECONFIG", ground.api.kubeconfig()).env("RUST_BACKTRACE", "0");
    run(command).await?.ended(0).with_context(|| block)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_does_what_it_says() -> Result<()> {
    let ground = Ground::new().await?;
    let _controllers = ground.controllers().await?;
    let mut blocks = blocks(GUIDE);
    next(&ground, &mut blocks, "meshctl ca init").await?;
    let installed = next(&ground, &mut blocks, "meshctl install --cluster-name paris").await?;
    installed.told("created StatefulSet isthmus/isthmus-hub")?;
    for program in [set("StatefulSet", "isthmus-hub"), set("DaemonSet", "isthmus-agent")] {
        ensure!(ground.find(&program).await?.is_some(), "no {program}: {installed:#?}");
    }
    next(&ground, &mut blocks, "-o yaml > isthmus.yaml").await?;
    let printed = std::fs::read_to_string(ground.path("tried").join("isthmus.yaml"))?;
    ensure!(printed.contains("kind: StatefulSet"), "{printed}");
    let gone = next(&ground, &mut blocks, "meshctl uninstall").await?;
    ensure!(ground.find(&super::namespace()).await?.is_none(), "{gone:#?}");
    ensure!(blocks.is_empty(), "blocks that this test does not know: {blocks:#?}");
    ground.nothing_unsupported()
}
