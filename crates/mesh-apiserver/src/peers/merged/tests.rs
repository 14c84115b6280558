use std::path::Path;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ClusterName {
    text.parse().expect("a name")
}

/// A configuration whose endpoint tells it from others.
fn config(endpoint: &str, written_from: Option<&str>) -> HubConfig {
    let text =
        format!("endpoints: [https://{endpoint}]\ntrusted-ca-file: /ca\ncert-file: /crt\nkey-file: /key\n");
    let mut config = HubConfig::read(Path::new("test"), &text).expect("sound").expect("a configuration");
    config.terms.written_from = written_from.map(str::to_owned);
    config
}

fn said(input: Input, peers: &[&str]) -> Said {
    let (label, from) = match input {
        Input::Folder => ("folder", false),
        Input::Secret => ("secret", false),
        Input::Objects => ("objects", true),
    };
    let configs = peers.iter().map(|peer| (name(peer), config(label, from.then_some(*peer))));
    Said { is_read: true, configs: configs.collect(), ..Said::unread(input, label) }
}

/// Whom to follow, each with the host by which it is reached.
fn followed(merged: &Merged) -> Vec<String> {
    let host = |(name, config): (&ClusterName, &HubConfig)| format!("{name}@{}", config.endpoints[0].host);
    merged.configs.iter().map(host).collect()
}

#[test]
fn the_nearest_input_counts_and_the_others_are_named() {
    let (folder, secret, objects) = (
        said(Input::Folder, &["tokyo"]),
        said(Input::Secret, &["tokyo", "lima"]),
        said(Input::Objects, &["lima", "oslo", "tokyo"]),
    );
    let merged = Merged::of(&[&objects, &secret, &folder]);
    assert_eq!(followed(&merged), ["lima@secret", "oslo@objects", "tokyo@folder"]);
    let found: Vec<&str> = merged.findings.iter().map(|finding| finding.found.as_str()).collect();
    assert_eq!(
        found,
        [
            "key lima of secret and ClusterPeer lima name it",
            "file folder/tokyo and ClusterPeer tokyo name it",
            "file folder/tokyo and key tokyo of secret name it",
        ]
    );
    assert_eq!(merged.from[&name("oslo")], (Input::Objects, "ClusterPeer oslo".to_owned()));
    assert!(merged.is_settled && merged.is_complete);
}

#[test]
fn a_pause_counts_before_everything() {
    let folder = said(Input::Folder, &["tokyo", "lima"]);
    let mut objects = said(Input::Objects, &[]);
    objects.paused.insert(name("tokyo"), "tokyo".to_owned());
    let merged = Merged::of(&[&folder, &objects]);
    assert_eq!(followed(&merged), ["lima@folder"]);
    assert!(merged.unusable.is_empty());
    assert_eq!(merged.findings[0].found, "file folder/tokyo names it, and ClusterPeer tokyo pauses it");
}

#[test]
fn what_cannot_be_used_still_claims_its_name() {
    let mut folder = said(Input::Folder, &["lima"]);
    folder.problems = ["tokyo", "lima", "No_Cluster"].map(|file| (file.to_owned(), "bad".to_owned())).into();
    let objects = said(Input::Objects, &["tokyo"]);
    let merged = Merged::of(&[&folder, &objects]);
    assert_eq!(followed(&merged), ["lima@folder"], "as before, where there was something before");
    assert_eq!(merged.unusable, [name("tokyo")].into());
    assert_eq!(merged.findings.len(), 4, "{:#?}", merged.findings);
}

#[test]
fn what_this_hub_wrote_for_the_agents_is_the_object_itself() {
    let mut folder = said(Input::Folder, &["lima"]);
    folder.configs.insert(name("tokyo"), config("old", Some("tokyo")));
    let objects = said(Input::Objects, &["tokyo"]);
    assert_eq!(followed(&Merged::of(&[&folder, &objects])), ["lima@folder", "tokyo@objects"]);
    assert_eq!(Merged::of(&[&folder, &objects]).findings, []);
    assert_eq!(
        followed(&Merged::of(&[&folder])),
        ["lima@folder", "tokyo@old"],
        "elsewhere it is a peer as any"
    );
    let written_out = Said { names_peers: false, ..said(Input::Objects, &[]) };
    assert_eq!(
        followed(&Merged::of(&[&folder, &written_out])),
        ["lima@folder", "tokyo@old"],
        "whom objects do not name here is named by nothing else"
    );
    let gone = said(Input::Objects, &[]);
    assert_eq!(followed(&Merged::of(&[&folder, &gone])), ["lima@folder"]);
}

#[test]
fn nothing_is_settled_before_each_has_been_read_or_says_why_not() {
    let folder = said(Input::Folder, &["tokyo"]);
    let mut objects = Said::unread(Input::Objects, "objects");
    assert!(!Merged::of(&[&folder, &objects]).is_settled);
    objects.trouble = Some("403".to_owned());
    let merged = Merged::of(&[&folder, &objects]);
    assert!(merged.is_settled && !merged.is_complete);
    assert_eq!(merged.findings, [], "the kind's followers say it");
    let mut secret = Said::unread(Input::Secret, "Secret mesh/peers");
    secret.trouble = Some("it is not there".to_owned());
    assert_eq!(Merged::of(&[&folder, &secret]).findings[0].object, "Secret mesh/peers");
}

proptest! {
    /// Whoever is claimed is followed, unusable or paused, by the first that claims.
    #[test]
    fn the_first_claim_counts(claims in prop::collection::vec((0usize..3, "[a-c]", any::<bool>()), 0..9), paused in prop::option::of("[a-c]")) {
        let inputs = [Input::Folder, Input::Secret, Input::Objects];
        let mut all = inputs.map(|input| said(input, &[]));
        for (at, peer, is_sound) in &claims {
            let input = &mut all[*at];
            match is_sound {
                true => drop(input.configs.insert(name(peer), config(&input.name, None))),
                false => drop(input.problems.insert(peer.clone(), "bad".to_owned())),
            }
        }
        all[2].paused = paused.iter().map(|peer| (name(peer), peer.clone())).collect();
        let merged = Merged::of(&[&all[2], &all[0], &all[1]]);
        for peer in ["a", "b", "c"] {
            let first = all.iter().find(|said| said.claims().contains(&name(peer)));
            let first = first.filter(|_| paused.as_deref() != Some(peer));
            let expected = first.and_then(|said| said.configs.get(&name(peer)));
            prop_assert_eq!(merged.configs.get(&name(peer)), expected);
            prop_assert_eq!(merged.unusable.contains(&name(peer)), first.is_some() && expected.is_none());
        }
    }
}
