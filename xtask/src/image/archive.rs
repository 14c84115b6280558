//! From files to an OCI image in one archive (image-spec 1.1, `image-layout.md`): one layer, not compressed, owned by root,
//! dated 1970, sorted. The same input gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// What an image is made of.
pub(crate) struct Image {
    /// Its name, without a registry.
    pub(crate) name: String,
    /// Its tag.
    pub(crate) tag: String,
    /// As OCI calls it, such as amd64.
    pub(crate) architecture: String,
    /// User and group, as numbers.
    pub(crate) user: String,
    /// The program that it starts, with its path.
    pub(crate) entrypoint: String,
    /// Files by path, without a leading slash.
    pub(crate) files: BTreeMap<String, Item>,
}

/// A file in an image.
pub(crate) struct Item {
    /// Permissions.
    pub(crate) mode: u32,
    /// Content.
    pub(crate) content: Vec<u8>,
}

/// An archive.
pub(crate) struct Packed {
    /// The archive itself.
    pub(crate) bytes: Vec<u8>,
    /// The digest by which registries know the image.
    pub(crate) digest: String,
}

/// Makes the archive. Fails if a path is too long for one.
pub(crate) fn pack(image: &Image) -> Result<Packed> {
    let layer = layer(&image.files)?;
    let created = "1970-01-01T00:00:00Z";
    let config = json!({
        "architecture": image.architecture, "os": "linux", "created": created,
        "config": {"User": image.user, "Entrypoint": [image.entrypoint], "WorkingDir": "/",
            "Env": ["PATH=/usr/bin"],
            "Labels": {"org.opencontainers.image.title": image.name, "org.opencontainers.image.version": image.tag,
                "org.opencontainers.image.licenses": "Apache-2.0"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created": created, "created_by": "cargo xtask image"}],
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = serde_json::to_vec(&manifest)?;
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["platform"] = json!({"architecture": image.architecture, "os": "linux"});
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": image.tag,
        "io.containerd.image.name": format!("{}:{}", image.name, image.tag)});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    let index = serde_json::to_vec(&index)?;

    let blobs =
        [&layer, &config, &manifest].map(|blob| (format!("blobs/sha256/{}", hex(blob)), blob.as_slice()));
    let mut files = BTreeMap::from(blobs);
    files.insert("index.json".to_owned(), &index);
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut archive = Builder::new(Vec::new());
    folders(&mut archive, files.keys())?;
    for (path, content) in files {
        append(&mut archive, &path, 0o644, EntryType::Regular, content)?;
    }
    Ok(Packed { bytes: archive.into_inner().context("end the archive")?, digest: digest(&manifest) })
}

fn layer(files: &BTreeMap<String, Item>) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    folders(&mut layer, files.keys())?;
    for (path, item) in files {
        append(&mut layer, path, item.mode, EntryType::Regular, &item.content)?;
    }
    layer.into_inner().context("end the layer")
}

/// All folders of these paths, those above before those below.
fn folders<'a>(archive: &mut Builder<Vec<u8>>, paths: impl Iterator<Item = &'a String>) -> Result<()> {
    let above = |path: &'a String| path.match_indices('/').map(|(at, _)| &path[..=at]).collect::<Vec<_>>();
    for folder in paths.flat_map(above).collect::<BTreeSet<_>>() {
        append(archive, folder, 0o755, EntryType::Directory, &[])?;
    }
    Ok(())
}

fn append(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    kind: EntryType,
    content: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, path, content).with_context(|| format!("add {path}"))
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, blob);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::*;

    fn image() -> Image {
        let file = |mode, content: &str| Item { mode, content: content.as_bytes().to_vec() };
        let files = [
            ("usr/bin/mesh-apiserver", file(0o755, "a program")),
            ("lib/x86_64-linux-gnu/libc.so.6", file(0o755, "a library")),
            ("etc/passwd", file(0o644, "root:x:0:0::/:/sbin/nologin\n")),
        ];
        Image {
            name: "isthmus/mesh-apiserver".to_owned(),
            tag: "0.1.0".to_owned(),
            architecture: "amd64".to_owned(),
            user: "65532:65532".to_owned(),
            entrypoint: "/usr/bin/mesh-apiserver".to_owned(),
            files: files.into_iter().map(|(path, file)| (path.to_owned(), file)).collect(),
        }
    }

    /// Files by path; asserts what holds of all entries.
    fn read(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut folders = BTreeSet::new();
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
            let header = entry.header().clone();
            assert_eq!(
                (header.uid().ok(), header.gid().ok(), header.mtime().ok()),
                (Some(0), Some(0), Some(0)),
                "{path}"
            );
            if let Some((folder, _)) = path.trim_end_matches('/').rsplit_once('/') {
                assert!(folders.contains(folder), "{path} before its folder");
            }
            if header.entry_type().is_dir() {
                folders.insert(path.trim_end_matches('/').to_owned());
                continue;
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            let twice = found.insert(path, (header.mode().expect("a mode"), content));
            assert!(twice.is_none(), "a path twice");
        }
        found
    }

    #[test]
    fn an_archive_says_what_went_in_and_its_digests_hold() {
        let image = image();
        let packed = pack(&image).expect("packed");
        let files = read(&packed.bytes);
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path].1).expect("JSON") };
        let blob = |descriptor: &Value| -> &[u8] {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let content = &files[&digest.replace(':', "/").replacen("sha256", "blobs/sha256", 1)].1;
            assert_eq!(super::digest(content), digest);
            assert_eq!(descriptor["size"], content.len());
            content
        };
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let index = json("index.json");
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], packed.digest.as_str());
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "0.1.0");
        let manifest: Value = serde_json::from_slice(blob(entry)).expect("a manifest");
        let config: Value = serde_json::from_slice(blob(&manifest["config"])).expect("a configuration");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/mesh-apiserver"]));
        assert_eq!(config["architecture"], "amd64");
        let labels = json!({"org.opencontainers.image.title": "isthmus/mesh-apiserver",
            "org.opencontainers.image.version": "0.1.0", "org.opencontainers.image.licenses": "Apache-2.0"});
        assert_eq!(config["config"]["Labels"], labels);
        assert_eq!(
            config["config"]["Env"],
            json!(["PATH=/usr/bin"]),
            "manifests name programs without their folder"
        );
        let layers = manifest["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 1);
        assert_eq!(config["rootfs"]["diff_ids"][0], layers[0]["digest"], "a layer is not compressed");
        let inside = read(blob(&layers[0]));
        let expected: BTreeMap<_, _> = image
            .files
            .iter()
            .map(|(path, file)| (path.clone(), (file.mode, file.content.clone())))
            .collect();
        assert_eq!(inside, expected);
        assert_eq!(files.len(), 5, "nothing else is in it: {:?}", files.keys());
    }

    #[test]
    fn the_same_files_give_the_same_bytes_and_others_do_not() {
        let (one, again) = (pack(&image()).expect("packed"), pack(&image()).expect("packed"));
        assert_eq!((&one.digest, &one.bytes), (&again.digest, &again.bytes));
        let mut other = image();
        other.files.insert("etc/group".to_owned(), Item { mode: 0o644, content: Vec::new() });
        assert_ne!(pack(&other).expect("packed").digest, one.digest);
    }

    #[test]
    fn another_reader_of_archives_takes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar");
        std::fs::write(&path, pack(&image()).expect("packed").bytes).expect("write");
        let listed = Command::new("tar").arg("-tf").arg(&path).output().expect("tar");
        let text = String::from_utf8_lossy(&listed.stdout);
        assert!(
            listed.status.success() && text.contains("index.json") && text.contains("blobs/sha256/"),
            "{text}"
        );
    }
}
