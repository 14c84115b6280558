//! An organisation's own authority signs the passport, the mesh's authority its addresses.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::Credentials;
use crate::cluster_authority::{ClusterAuthority, PASSPORT_KEY};
use crate::files::{AUTHORITIES, STATEMENTS};
use crate::profile::{LeafRole, LeafSpec, PassportSpec, passport_params};

/// An authority that knows nothing of address blocks.
struct Organisation {
    root: CertificateDer<'static>,
    key: PrivateKey,
}

impl Organisation {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let root = params.self_signed(key.pair()).expect("signed").der().clone();
        Self { root, key }
    }

    fn passport(
        &self,
        key: &PrivateKey,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let spec = PassportSpec {
            uri: "spiffe://mesh.example/cluster/tokyo/id/2".parse().expect("a URI"),
            blocks: ["10.2.0.0/16"].iter().map(|text| parse_block(text).expect("a block")).collect(),
            dns_names: vec!["hub.tokyo.example".to_owned()],
            addresses: Vec::new(),
            life: life::PASSPORT,
        };
        let mut params = passport_params(&spec, SystemTime::now()).expect("parameters");
        params.custom_extensions.clear();
        change(&mut params);
        let issuer = Issuer::from_ca_cert_der(&self.root, self.key.pair()).expect("an issuer");
        let request = SigningRequest::from_pem(&key.request().expect("a request")).expect("sound");
        params.signed_by(request.public_key(), &issuer).expect("signed").der().clone()
    }
}

#[test]
fn a_passport_without_blocks_works_with_its_statement() {
    let (dir, authority) = init();
    authority.enroll(&request("paris", 1, &["10.1.0.0/16"]), &signing()).expect("granted");
    let organisation = Organisation::new();
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let der = organisation.passport(&key, |_| {});
    let wanted = request("tokyo", 2, &["10.2.0.0/16"]);
    let attested = authority.attest(&wanted, &der).expect("granted");
    assert_eq!(attested.passport.blocks.to_string(), "10.2.0.0/16");
    assert_eq!(attested.passport.der, der);
    // Again, with more addresses, for the same key.
    let wider = request("tokyo", 2, &["10.2.0.0/16", "fd00:10:2::/48"]);
    assert!(authority.attest(&wider, &der).expect("granted").renewed);
    // And for others they are taken.
    authority.enroll(&request("osaka", 3, &["fd00:10:2:1::/64"]), &signing()).expect_err("refused");
    let renewed =
        authority.renew(&"tokyo".parse().expect("a name"), &signing()).expect_err("not ours").to_string();
    assert!(renewed.contains("was signed by another authority"), "{renewed}");

    // The files work from the passport down to a leaf.
    let home = dir.path().join("tokyo");
    durable::private_dir(&home).expect("made");
    key.write(&home.join(PASSPORT_KEY)).expect("written");
    let bundle = authority.bundle().expect("made");
    assert_eq!(bundle.statements.lines().count(), 1);
    bundle.write_documents(&home).expect("written");
    let roots = [organisation.root.clone(), authority.root().clone()];
    ClusterAuthority::write_passport(&home, &attested.passport, &roots).expect("written");
    let cluster = ClusterAuthority::open(&home).expect("opened");
    assert_eq!(cluster.passport().blocks.to_string(), "10.2.0.0/16, fd00:10:2::/48");
    let leaf_key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let leaf_request = SigningRequest::from_pem(&leaf_key.request().expect("a request")).expect("sound");
    let spec = LeafSpec::new(LeafRole::Hub, "n1".parse().expect("a node"));
    let out = dir.path().join("hub");
    cluster.issue_leaf(&spec, &leaf_request).expect("issued").write(&out, Some(&leaf_key)).expect("written");
    let credentials = Credentials::load(&out).expect("usable");
    assert_eq!(credentials.passport().expect("its own").blocks.to_string(), "10.2.0.0/16, fd00:10:2::/48");
    // Without the statement nothing says which addresses are its own.
    std::fs::remove_file(out.join(STATEMENTS)).expect("removed");
    assert!(Credentials::load(&out).expect("usable").passport().is_none());
    std::fs::remove_file(home.join(STATEMENTS)).expect("removed");
    let error = ClusterAuthority::open(&home).expect_err("no blocks");
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(
        error.to_string().contains("passport.crt: not a passport") && cause.contains("no address blocks"),
        "{error}: {cause}"
    );
    assert!(home.join(AUTHORITIES).exists());
    let found = audit(&authority.dir, None, &[der]).expect("read");
    assert!(found.is_sound(), "{:?}", found.findings);
}

#[test]
fn only_a_passport_that_says_what_was_asked_for_is_attested() {
    let (_dir, authority) = init();
    let organisation = Organisation::new();
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let wanted = request("tokyo", 2, &["10.2.0.0/16"]);
    let refused = |wanted: &EnrolRequest, change: fn(&mut CertificateParams), part: &str| {
        let error =
            authority.attest(wanted, &organisation.passport(&key, change)).expect_err(part).to_string();
        assert!(error.contains(part), "{part:?} expected in: {error}");
    };
    refused(
        &request("osaka", 2, &["10.2.0.0/16"]),
        |_| {},
        "is for spiffe://mesh.example/cluster/tokyo/id/2, expected",
    );
    refused(
        &request("tokyo", 3, &["10.2.0.0/16"]),
        |_| {},
        "expected spiffe://mesh.example/cluster/tokyo/id/3",
    );
    refused(&wanted, |params| params.name_constraints = None, "does not limit DNS names");
    refused(
        &wanted,
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        "path length is not limited",
    );
    refused(&wanted, |params| params.subject_alt_names.clear(), "it has 0 URIs");
    let mut unlisted = wanted.clone();
    unlisted.hub_addresses.clear();
    refused(&unlisted, |_| {}, "permits hub.tokyo.example, which the request does not list");
    refused(
        &wanted,
        |params| {
            let constraints = params.name_constraints.as_mut().expect("constraints");
            let net = rcgen::CidrSubnet::from_addr_prefix([10, 0, 0, 0].into(), 8);
            constraints.permitted_subtrees.push(rcgen::GeneralSubtree::IpAddress(net));
        },
        "permits 10.0.0.0/8",
    );
    refused(
        &wanted,
        |params| {
            let from = SystemTime::now() - life::PASSPORT;
            crate::profile::set_validity(params, from, from + life::CLIENT);
        },
        "the certificate ended at",
    );
    assert!(authority.ledger().expect("read").enrolments().is_empty());
}

/// The library would write another issuer into the leaf: said before anything is signed.
#[test]
fn an_issuer_with_an_attribute_twice_is_named() {
    let (dir, _authority) = init();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let configuration = "[req]\ndistinguished_name = name\nprompt = no\n[name]\n0.DC = com\n1.DC = example\nCN = tokyo\n[ca]\n\
         basicConstraints = critical,CA:TRUE,pathlen:0\nkeyUsage = critical,keyCertSign\n\
         subjectAltName = URI:spiffe://mesh.example/cluster/tokyo/id/2\n\
         nameConstraints = critical,permitted;DNS:tokyo.mesh.cilium.io,permitted;IP:127.0.0.1/255.255.255.255,permitted;IP:0:0:0:0:0:0:0:1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n\
         sbgp-ipAddrBlock = IPv4:10.2.0.0/16\n";
    std::fs::write(path("cnf"), configuration).expect("written");
    let run = |args: &[&str]| {
        let output = std::process::Command::new("openssl").args(args).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        &path("passport.key"),
    ]);
    run(&[
        "req",
        "-new",
        "-x509",
        "-key",
        &path("passport.key"),
        "-config",
        &path("cnf"),
        "-extensions",
        "ca",
        "-out",
        &path("passport.crt"),
    ]);
    std::fs::copy(path("passport.crt"), path("ca.crt")).expect("copied");
    let cluster = ClusterAuthority::open(dir.path()).expect("opened");
    let spec = LeafSpec::new(LeafRole::Remote, "n1".parse().expect("a node"));
    let error = cluster.issue_leaf(&spec, &signing()).map(drop).expect_err("named").to_string();
    assert!(error.contains("DC=com, DC=example, CN=tokyo has an attribute twice"), "{error}");
}
