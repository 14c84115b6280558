//! What is wrong with the passport, its blocks apart.

use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose};

use super::parts::*;
use super::{Kind, Ours, Part, kind};
use crate::profile::{life, set_validity};
use crate::verifier::fixture::{ago, now, set_uri};

pub(super) fn kinds() -> Vec<Kind> {
    use Ours::{Failed, Refused};
    use Part::{Alone, Constraints, PassportDates, PassportUsage, Uris};
    vec![
        kind(
            "passport ended",
            PassportDates,
            Failed("a certificate of its chain ended at"),
            &[10],
            "",
            |plan| {
                plan.passport.push(|params| set_validity(params, ago(30), ago(1)));
            },
        ),
        kind("passport not yet valid", PassportDates, Failed("starts at"), &[9], "", |plan| {
            plan.passport.push(|params| set_validity(params, now() + HOUR, now() + life::PASSPORT));
        }),
        kind(
            "passport without path length",
            PassportUsage,
            Refused("not limited, expected 0"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport.push(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
            },
        ),
        kind(
            "passport with path length 1",
            PassportUsage,
            Refused("path length is 1"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport.push(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
            },
        ),
        kind(
            "passport that is no authority",
            PassportUsage,
            Failed("signed by a leaf"),
            &[24, 79],
            "",
            |plan| {
                plan.passport.push(|params| params.is_ca = IsCa::ExplicitNoCa);
            },
        ),
        kind(
            "passport without basic constraints",
            PassportUsage,
            Failed("signed by a leaf"),
            &[24, 79],
            "",
            |plan| {
                plan.passport.push(|params| params.is_ca = IsCa::NoCa);
            },
        ),
        kind(
            "passport that may not sign",
            PassportUsage,
            Refused("keyCertSign"),
            &[24, 32, 79],
            "",
            |plan| {
                plan.passport.push(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
            },
        ),
        kind(
            "passport for servers only",
            PassportUsage,
            Failed("does not list clientAuth"),
            &[24, 26, 79],
            "",
            |plan| {
                plan.passport
                    .push(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
            },
        ),
        kind("passport without URI", Uris, Refused("it has 0 URIs"), &[], OUR_RULE, |plan| {
            plan.passport.push(|params| params.subject_alt_names.clear());
        }),
        kind("passport with two URIs", Uris, Refused("it has 2 URIs"), &[], OUR_RULE, |plan| {
            plan.passport.push(|params| add_uri(params, "spiffe://mesh.example/cluster/osaka/id/3"));
        }),
        kind("passport of id 0", Uris, Refused("id/<1 to 511>"), &[], OUR_RULE, |plan| {
            plan.passport.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/id/0"));
        }),
        kind("passport whose URI is a leaf's", Uris, Refused("cluster/<name>/id/"), &[], OUR_RULE, |plan| {
            plan.passport.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/node/n1/hub"));
        }),
        kind(
            "passport whose URI is spelled otherwise",
            Uris,
            Refused("cluster/<name>/id/"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/id/02"));
            },
        ),
        kind("passport of another cluster", Uris, Refused("its URI names tokyo"), &[], OUR_RULE, |plan| {
            plan.passport.push(|params| set_uri(params, "spiffe://mesh.example/cluster/osaka/id/2"));
        }),
        kind(
            "passport of another trust domain",
            Uris,
            Refused("its passport is tokyo in other.example"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport.push(|params| set_uri(params, "spiffe://other.example/cluster/tokyo/id/2"));
            },
        ),
        kind("passport with our own id", Uris, Refused("this cluster's own id 1"), &[], OUR_RULE, |plan| {
            plan.passport.push(|params| set_uri(params, "spiffe://mesh.example/cluster/tokyo/id/1"));
        }),
        kind(
            "passport without name constraints",
            Constraints,
            Refused("does not limit DNS names"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport.push(|params| params.name_constraints = None);
            },
        ),
        kind(
            "passport without constraints on addresses",
            Constraints,
            Refused("does not limit IPv4"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport
                    .push(|params| permit(params, |tree| matches!(tree, GeneralSubtree::DnsName(_))));
            },
        ),
        kind(
            "passport without constraints on IPv6",
            Constraints,
            Refused("does not limit IPv6"),
            &[],
            OUR_RULE,
            |plan| {
                plan.passport.push(|params| {
                    permit(params, |tree| match tree {
                        GeneralSubtree::IpAddress(net) => matches!(net, rcgen::CidrSubnet::V4(..)),
                        _ => true,
                    });
                });
            },
        ),
        kind(
            "passport with a constraint on directory names",
            // Not with a leaf that has no name: it meets the constraint.
            Alone,
            Failed("a name or address that its passport does not permit"),
            &[47],
            "",
            |plan| {
                plan.passport.push(|params| {
                    let mut name = rcgen::DistinguishedName::new();
                    name.push(DnType::OrganizationName, "another");
                    let constraints = params.name_constraints.as_mut().expect("constraints");
                    constraints.permitted_subtrees.push(GeneralSubtree::DirectoryName(name));
                });
            },
        ),
        kind("passport with a critical extension that nobody knows", Alone, Failed(""), &[34], "", |plan| {
            plan.passport.push(|params| params.custom_extensions.push(unknown_critical()));
        }),
        kind("passport with a changed byte", Alone, Failed(""), &[7], "", |plan| {
            plan.after.push(|made| {
                made.passport = changed_signature(&made.passport);
                made.sent = vec![made.passport.clone()];
            });
        }),
    ]
}
