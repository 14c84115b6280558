//! Reading what daemons say about themselves. All knowledge of the shape of `/status` and `/image` that tests use is
//! here, so that a change of a document changes this file alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Fails unless somewhere in the document one list entry, object or text contains all of these words: a finding that
/// names the object, what was found and what was expected.
pub fn expect_finding(status: &Value, words: &[&str]) -> Result<()> {
    ensure!(has_finding(status, words), "no entry of /status names all of {words:?}; it is {status:#}");
    Ok(())
}

/// Whether some list entry, object or text contains all of these words.
pub fn has_finding(status: &Value, words: &[&str]) -> bool {
    match status {
        Value::Array(entries) => entries.iter().any(|entry| says(entry, words) || has_finding(entry, words)),
        Value::Object(fields) => fields.values().any(|field| has_finding(field, words)),
        Value::String(text) => words.iter().all(|word| text.contains(word)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The backends in an agent's maps: id by `address:port/protocol`.
pub fn backend_ids(image: &Value) -> Result<BTreeMap<String, u64>> {
    let backends = image.get("backends").and_then(Value::as_array).context("image has no list `backends`")?;
    backends
        .iter()
        .map(|backend| {
            let field =
                |name: &str| backend.get(name).with_context(|| format!("backend without {name}: {backend}"));
            let id = field("id")?.as_u64().with_context(|| format!("backend id: {backend}"))?;
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let key =
                format!("{}:{}/{}", text(field("address")?), text(field("port")?), text(field("protocol")?));
            Ok((key, id))
        })
        .collect()
}

/// Whether the entry as a whole contains all of the words: an object's fields count together.
fn says(entry: &Value, words: &[&str]) -> bool {
    let text = entry.to_string();
    words.iter().all(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_one_entry() {
        let status = json!({ "findings": [
            { "object": "Service shop/echo", "found": "sideways", "expected": "none, local, remote" },
            { "object": "Service shop/other", "found": "x" },
        ]});
        assert!(has_finding(&status, &["shop/echo", "sideways"]));
        assert!(
            !has_finding(&status, &["shop/other", "sideways"]),
            "words of two entries are not one finding"
        );
    }

    #[test]
    fn ids_by_address() {
        let image =
            json!({ "backends": [{ "id": 7, "address": "10.1.1.10", "port": 8080, "protocol": "tcp" }] });
        let ids = backend_ids(&image).expect("one backend");
        assert_eq!(ids.get("10.1.1.10:8080/tcp"), Some(&7));
    }
}
