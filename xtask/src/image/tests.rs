//! Which programs go into which image and as whom they run, and that a program runs with what is in its image.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

#[test]
fn each_image_has_its_programs_and_the_least_user() {
    let folder = tempfile::tempdir().expect("a folder");
    for program in ["mesh-apiserver", "mesh-agent", "mesh-agent-cleanup", "meshctl"] {
        // What is no program needs no libraries.
        std::fs::write(folder.path().join(program), program).expect("write");
    }
    let images = PROGRAMS.each_ref().map(|program| read(program, folder.path(), "1.2.3").expect("an image"));
    let found = images.each_ref().map(|image| {
        let programs = image.files.iter().filter_map(|(path, item)| {
            let name = path.strip_prefix("usr/bin/")?;
            assert!(item.mode == 0o755 && item.content == name.as_bytes(), "{path}");
            Some(name)
        });
        (image.name.as_str(), image.user.as_str(), image.entrypoint.as_str(), programs.collect::<Vec<_>>())
    });
    let expected = [
        ("isthmus/mesh-apiserver", "65532:65532", "/usr/bin/mesh-apiserver", vec!["mesh-apiserver"]),
        ("isthmus/mesh-agent", "0:0", "/usr/bin/mesh-agent", vec!["mesh-agent", "mesh-agent-cleanup"]),
        ("isthmus/meshctl", "65532:65532", "/usr/bin/meshctl", vec!["meshctl"]),
    ];
    assert_eq!(found, expected);
    for image in &images {
        assert_eq!(image.tag, "1.2.3");
        let users = String::from_utf8_lossy(&image.files["etc/passwd"].content);
        let user = image.user.split(':').next().expect("a user");
        assert!(users.lines().any(|line| line.split(':').nth(2) == Some(user)), "no {user} in {users}");
    }
    std::fs::remove_file(folder.path().join("mesh-agent-cleanup")).expect("remove");
    let missing = read(&PROGRAMS[1], folder.path(), "1.2.3").map(drop).expect_err("it is not there");
    assert!(format!("{missing:#}").contains("mesh-agent-cleanup"), "{missing:#}");
}

/// The layer of an image is all that a container has: unpacked, it must do as a root folder for the image's user. The
/// program is this test itself, which says which tests there are. Needs root, for `chroot`.
#[test]
fn a_program_runs_with_what_is_in_its_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = std::env::current_exe().expect("this program");
    std::os::unix::fs::symlink(&own, folder.path().join("mesh-apiserver")).expect("link");
    let image = read(&PROGRAMS[0], folder.path(), "1").expect("an image");
    let packed = archive::pack(&image).expect("packed");
    let inner = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(inner.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
    let blobs = unpacked(&packed.bytes);
    let layer = blobs.iter().max_by_key(|blob| blob.len()).expect("a layer");
    tar::Archive::new(layer.as_slice()).unpack(inner.path()).expect("unpack");
    let output = Command::new("chroot")
        .args([&format!("--userspec={}", image.user)])
        .arg(inner.path())
        .args([&image.entrypoint, "--list"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .expect("chroot");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("a_program_runs_with_what_is_in_its_image"),
        "{}: {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn unpacked(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().expect("an archive").map(|entry| {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry.expect("an entry"), &mut content).expect("content");
        content
    });
    entries.collect()
}
