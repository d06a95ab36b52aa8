//! Checks the form of an object against a small description of it. PURE.

use serde_json::Value;

use super::status::Cause;

/// What a value may be. A field that is not there, or null, is always fine.
#[derive(Debug)]
pub(crate) enum Shape {
    Text,
    Flag,
    Number,
    /// A port number.
    Port,
    /// A port number written as a string.
    PortText,
    Texts,
    TextMap,
    OneOf(&'static [&'static str]),
    List(&'static Shape),
    /// An object that may have other fields too.
    Open(&'static [(&'static str, Shape)]),
    /// An object with no other fields.
    Closed(&'static [(&'static str, Shape)]),
}

/// Everything that is wrong, each with the path of its field.
pub(crate) fn check(shape: &Shape, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    visit(shape, value, "", &mut causes);
    causes
}

fn visit(shape: &Shape, value: &Value, field: &str, causes: &mut Vec<Cause>) {
    let fine = match (shape, value) {
        (_, Value::Null) => true,
        (Shape::Text, value) => value.is_string(),
        (Shape::Flag, value) => value.is_boolean(),
        (Shape::Number, value) => value.is_i64(),
        (Shape::Port, value) => value.as_u64().is_some_and(is_port),
        (Shape::PortText, value) => {
            value.as_str().and_then(|v| v.parse().ok()).is_some_and(is_port)
        }
        (Shape::OneOf(words), value) => value.as_str().is_some_and(|v| words.contains(&v)),
        (Shape::Texts, value) => return visit(&Shape::List(&Shape::Text), value, field, causes),
        (Shape::List(shape), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let field = format!("{field}[{index}]");
                if item.is_null() {
                    causes.push(Cause::invalid(field, "must not be null"));
                } else {
                    visit(shape, item, &field, causes);
                }
            }
            true
        }
        (Shape::TextMap, Value::Object(entries)) => {
            for (key, value) in entries {
                visit(&Shape::Text, value, &join(field, key), causes);
            }
            true
        }
        (Shape::Open(fields) | Shape::Closed(fields), Value::Object(entries)) => {
            for (key, value) in entries {
                match fields.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => visit(shape, value, &join(field, key), causes),
                    None if matches!(shape, Shape::Closed(_)) => {
                        causes.push(Cause::invalid(join(field, key), "there is no such field"));
                    }
                    None => {}
                }
            }
            true
        }
        _ => false,
    };
    if !fine {
        causes.push(Cause::invalid(field, format!("must be {}", wanted(shape))));
    }
}

fn is_port(number: u64) -> bool {
    (1..=65535).contains(&number)
}

fn join(field: &str, key: &str) -> String {
    if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") }
}

fn wanted(shape: &Shape) -> String {
    match shape {
        Shape::Text => "a string".to_owned(),
        Shape::Flag => "true or false".to_owned(),
        Shape::Number => "a whole number".to_owned(),
        Shape::Port => "a port number, 1 to 65535".to_owned(),
        Shape::PortText => "a port number, 1 to 65535, written as a string".to_owned(),
        Shape::OneOf(words) => format!("one of {}", words.join(", ")),
        Shape::Texts | Shape::List(_) => "a list".to_owned(),
        Shape::TextMap | Shape::Open(_) | Shape::Closed(_) => "an object".to_owned(),
    }
}
