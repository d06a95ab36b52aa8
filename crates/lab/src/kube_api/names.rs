//! Which names, labels and annotations are allowed. PURE.

use serde_json::Value;

use super::resource::NameRule;
use super::status::Cause;

/// All annotations of an object together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Checks a name against the rule of its resource.
pub(crate) fn object_name(rule: NameRule, name: &str) -> Result<(), String> {
    match rule {
        NameRule::Label => dns_label(name),
        NameRule::Subdomain => dns_subdomain(name),
    }
}

fn dns_label(name: &str) -> Result<(), String> {
    if name.len() <= 63 && dns_part(name) {
        return Ok(());
    }
    Err("must be a DNS label: 1 to 63 lower case letters, digits or '-', \
         beginning and ending with a letter or digit"
        .to_owned())
}

fn dns_subdomain(name: &str) -> Result<(), String> {
    if name.len() <= 253 && name.split('.').all(dns_part) {
        return Ok(());
    }
    Err("must be a DNS subdomain: at most 253 lower case letters, digits, '-' or '.', \
         each part beginning and ending with a letter or digit"
        .to_owned())
}

fn dns_part(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
}

/// Checks the key of a label or annotation: an optional DNS prefix, a slash, a name.
pub(crate) fn label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|why| format!("the prefix {why}"))?;
            name
        }
        None => key,
    };
    if name.is_empty() { Err("the name is empty".to_owned()) } else { label_value(name) }
}

/// Checks the value of a label; it may be empty.
pub(crate) fn label_value(value: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    if bytes.len() <= 63
        && bytes.iter().all(|b| inner(*b))
        && edge(bytes.first())
        && edge(bytes.last())
    {
        return Ok(());
    }
    Err("must be at most 63 letters, digits, '-', '_' or '.', \
         beginning and ending with a letter or digit"
        .to_owned())
}

/// What is wrong with the metadata that clients may write.
pub(crate) fn metadata(object: &Value, rule: NameRule) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    if let Err(why) = object_name(rule, metadata["name"].as_str().unwrap_or_default()) {
        causes.push(Cause::invalid("metadata.name", why));
    }
    strings(&metadata["labels"], "metadata.labels", &mut causes, |key, value| {
        label_key(key).and_then(|()| label_value(value))
    });
    let mut size = 0;
    strings(&metadata["annotations"], "metadata.annotations", &mut causes, |key, value| {
        size += key.len() + value.len();
        label_key(&key.to_ascii_lowercase())
    });
    if size > ANNOTATIONS_LIMIT {
        let why = format!("{size} bytes are more than the {ANNOTATIONS_LIMIT} allowed");
        causes.push(Cause::invalid("metadata.annotations", why));
    }
    let finalizers = metadata["finalizers"].as_array().into_iter().flatten();
    for (index, finalizer) in finalizers.enumerate() {
        if finalizer.as_str().is_none_or(|f| label_key(f).is_err()) {
            let why = "must be a qualified name";
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), why));
        }
    }
    causes
}

fn strings(
    map: &Value,
    field: &str,
    causes: &mut Vec<Cause>,
    mut check: impl FnMut(&str, &str) -> Result<(), String>,
) {
    match map {
        Value::Null => {}
        Value::Object(entries) => {
            for (key, value) in entries {
                let Some(text) = value.as_str() else {
                    causes.push(Cause::invalid(format!("{field}.{key}"), "must be a string"));
                    continue;
                };
                if let Err(why) = check(key, text) {
                    causes.push(Cause::invalid(format!("{field}.{key}"), why));
                }
            }
        }
        _ => causes.push(Cause::invalid(field, "must be a map of strings")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_follow_the_rule_of_their_resource() {
        let long = "a".repeat(64);
        for (name, label, subdomain) in [
            ("web", true, true),
            ("web-1.prod", false, true),
            ("Web", false, false),
            ("-web", false, false),
            ("web-", false, false),
            ("web..x", false, false),
            ("", false, false),
            ("wéb", false, false),
            (long.as_str(), false, true),
        ] {
            assert_eq!(object_name(NameRule::Label, name).is_ok(), label, "label {name}");
            assert_eq!(object_name(NameRule::Subdomain, name).is_ok(), subdomain, "{name}");
        }
    }

    #[test]
    fn wrong_metadata_is_named_field_by_field() {
        let object = json!({"metadata": {
            "name": "p", "labels": {"a": "b c", "x": 7, "ok": ""}, "annotations": {"A/b": "anything goes"},
            "finalizers": ["", "a/b"],
        }});
        let causes = metadata(&object, NameRule::Subdomain);
        let fields: Vec<_> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["metadata.labels.a", "metadata.labels.x", "metadata.finalizers[0]"]);
    }
}
