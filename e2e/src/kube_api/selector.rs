//! Label and field selectors, as they stand in queries.

use std::str::FromStr;

use serde_json::Value;

use super::failure::Failure;
use super::kinds::Kind;

/// Which objects a request is about. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRule {
    path: Vec<String>,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads both selectors of a query; fails for fields by which this kind cannot be selected.
    pub fn parse(kind: &Kind, labels: Option<&str>, fields: Option<&str>) -> Result<Self, Failure> {
        let labels = match labels {
            Some(text) => parse_labels(text).map_err(|why| {
                Failure::bad_request(format!("unable to parse label selector {text:?}: {why}"))
            })?,
            None => Vec::new(),
        };
        let mut rules = Vec::new();
        for term in fields.unwrap_or_default().split(',').map(str::trim).filter(|term| !term.is_empty()) {
            rules.push(field_rule(kind, term)?);
        }
        Ok(Self { labels, fields: rules })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether it selects this object.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
        self.labels.iter().all(|rule| match rule {
            LabelRule::In(name, values) => label(name).is_some_and(|v| values.iter().any(|w| w == v)),
            LabelRule::NotIn(name, values) => label(name).is_none_or(|v| values.iter().all(|w| w != v)),
            LabelRule::Exists(name) => label(name).is_some(),
            LabelRule::Absent(name) => label(name).is_none(),
        }) && self.fields.iter().all(|rule| {
            let found = rule.path.iter().try_fold(object, |value, field| value.get(field));
            (found.and_then(Value::as_str).unwrap_or_default() == rule.value) == rule.equal
        })
    }
}

fn field_rule(kind: &Kind, term: &str) -> Result<FieldRule, Failure> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid selector: {term:?}; can't understand it")));
    };
    let known = match path {
        "metadata.name" => true,
        "metadata.namespace" => kind.namespaced,
        "spec.nodeName" => kind.is("", "pods"),
        _ => false,
    };
    if !known {
        let real = format!("field label not supported: {path} (of {})", kind.resource());
        return Err(Failure::not_built(real).with_code(400, "BadRequest"));
    }
    let path = path.split('.').map(str::to_owned).collect();
    Ok(FieldRule { path, value: value.to_owned(), equal })
}

/// Splits at commas outside of parentheses.
fn parse_labels(text: &str) -> Result<Vec<LabelRule>, String> {
    let mut rules = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut depth = 0;
        let end = rest.find(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        });
        let (term, after) = match end {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, ""),
        };
        rules.push(term.trim().parse()?);
        rest = after.trim();
    }
    Ok(rules)
}

impl FromStr for LabelRule {
    type Err = String;

    fn from_str(term: &str) -> Result<Self, String> {
        let rule = if let Some(name) = term.strip_prefix('!') {
            Self::Absent(name.trim().to_owned())
        } else if let Some((name, value)) = term.split_once("!=") {
            Self::NotIn(name.trim().to_owned(), vec![value.trim().to_owned()])
        } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            Self::In(name.trim().to_owned(), vec![value.trim().to_owned()])
        } else if let Some((head, values)) = term.split_once('(') {
            let values = values.strip_suffix(')').ok_or("a parenthesis is not closed")?;
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            match head.split_whitespace().collect::<Vec<_>>().as_slice() {
                [name, "in"] => Self::In((*name).to_owned(), values),
                [name, "notin"] => Self::NotIn((*name).to_owned(), values),
                _ => return Err(format!("{head:?}: expected a label, then \"in\" or \"notin\"")),
            }
        } else {
            Self::Exists(term.to_owned())
        };
        let (Self::In(name, _) | Self::NotIn(name, _) | Self::Exists(name) | Self::Absent(name)) = &rule;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("{name:?} is not a label's name"));
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::{KindId, built_in};
    use super::*;

    #[test]
    fn selectors_select() {
        let kinds = built_in();
        let pods = kinds.get(&KindId { group: String::new(), plural: "pods".to_owned() }).expect("served");
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "web"}}, "spec": {"nodeName": "n1"}});
        for (labels, fields, selected) in [
            ("", "", true),
            ("app=x", "", true),
            ("app==x,tier!=db", "", true),
            ("app in (x, y),tier notin (db)", "", true),
            ("app in (y)", "", false),
            ("!app", "", false),
            ("app,!zone", "", true),
            ("zone!=a", "", true),
            ("", "metadata.name=a,spec.nodeName=n1", true),
            ("", "metadata.name!=a", false),
            ("app=x", "spec.nodeName=n2", false),
        ] {
            let selector = Selector::parse(pods, Some(labels), Some(fields)).expect(labels);
            assert_eq!(selector.matches(&pod), selected, "{labels:?} {fields:?}");
        }
        for (labels, fields) in
            [("app in (x", ""), ("a b", ""), ("", "spec.dnsPolicy=x"), ("", "metadata.name"), ("=x", "")]
        {
            Selector::parse(pods, Some(labels), Some(fields)).expect_err(labels);
        }
    }
}
