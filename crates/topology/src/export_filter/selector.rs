//! Labels as Kubernetes selects by them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A label selector with Kubernetes' meaning: all of it must hold. The empty one holds for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What else must hold.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub match_expressions: BTreeSet<Expression>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Members")]
pub struct Expression {
    key: String,
    operator: Operator,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    values: BTreeSet<String>,
}

/// What a label is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// It is there, with one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Why an expression has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExpression {
    /// There is nothing to hold it against.
    #[error("key {key:?}: operator {operator:?} needs values, expected at least one")]
    NoValues {
        /// The label.
        key: String,
        /// The operator.
        operator: Operator,
    },
    /// Values that would not count.
    #[error("key {key:?}: operator {operator:?} takes no values")]
    Values {
        /// The label.
        key: String,
        /// The operator.
        operator: Operator,
    },
    /// No label is named.
    #[error("key is empty, expected the name of a label")]
    NoKey,
}

/// Holds an expression as users write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: BTreeSet<String>,
}

impl LabelSelector {
    /// Whether it holds for everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether it holds for labels that `value` looks up by key.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.match_labels.iter().all(|(key, wanted)| value(key) == Some(wanted.as_str()))
            && self.match_expressions.iter().all(|expression| expression.holds(value(&expression.key)))
    }
}

impl Expression {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_one = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_one,
            Operator::NotIn => !is_one,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl TryFrom<Members> for Expression {
    type Error = InvalidExpression;

    fn try_from(members: Members) -> Result<Self, Self::Error> {
        let Members { key, operator, values } = members;
        if key.is_empty() {
            return Err(InvalidExpression::NoKey);
        }
        match (operator, values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => Err(InvalidExpression::NoValues { key, operator }),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                Err(InvalidExpression::Values { key, operator })
            }
            _ => Ok(Self { key, operator, values }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(selector: &str, labels: &[(&str, &str)], expected: bool) {
        let selector: LabelSelector = serde_json::from_str(selector).expect("a selector");
        let value = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        assert_eq!(selector.matches(value), expected, "{selector:?} on {labels:?}");
    }

    #[test]
    fn the_meaning_is_that_of_kubernetes() {
        let paid = [("tier", "paid"), ("app", "")];
        check("{}", &[], true);
        check(r#"{"matchLabels":{"tier":"paid"}}"#, &paid, true);
        check(r#"{"matchLabels":{"tier":"free"}}"#, &paid, false);
        check(r#"{"matchLabels":{"tier":"paid","zone":"a"}}"#, &paid, false);
        check(r#"{"matchLabels":{"zone":""}}"#, &paid, false);
        let one = |operator: &str, key: &str, values: &str| {
            format!(r#"{{"matchExpressions":[{{"key":"{key}","operator":"{operator}"{values}}}]}}"#)
        };
        let values = r#","values":["paid","gold"]"#;
        check(&one("In", "tier", values), &paid, true);
        check(&one("In", "zone", values), &paid, false);
        check(&one("NotIn", "tier", values), &paid, false);
        check(&one("NotIn", "zone", values), &paid, true);
        check(&one("Exists", "app", ""), &paid, true);
        check(&one("Exists", "zone", ""), &paid, false);
        check(&one("DoesNotExist", "zone", ""), &paid, true);
        check(&one("DoesNotExist", "app", ""), &paid, false);
    }

    #[test]
    fn an_expression_without_meaning_is_refused() {
        for bad in [
            r#"{"key":"a","operator":"In"}"#,
            r#"{"key":"a","operator":"NotIn","values":[]}"#,
            r#"{"key":"a","operator":"Exists","values":["b"]}"#,
            r#"{"key":"","operator":"Exists"}"#,
            r#"{"key":"a","operator":"in","values":["b"]}"#,
            r#"{"key":"a","operator":"Exists","value":"b"}"#,
        ] {
            assert!(serde_json::from_str::<Expression>(bad).is_err(), "{bad}");
        }
    }
}
