//! Objects as text.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use super::render::Object;

/// A form of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A YAML document each
    Yaml,
    /// One JSON list
    Json,
}

/// All objects in this form.
pub fn print(objects: &[Object], form: Form) -> Result<String> {
    match form {
        Form::Yaml => {
            let mut text = String::new();
            for object in objects {
                text.push_str("---\n");
                text.push_str(&serde_yaml_ng::to_string(&object.value)?);
            }
            Ok(text)
        }
        Form::Json => {
            let items: Vec<_> = objects.iter().map(|object| &object.value).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            Ok(serde_json::to_string_pretty(&list)?)
        }
    }
}
