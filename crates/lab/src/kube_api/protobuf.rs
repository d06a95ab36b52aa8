//! The few bodies that kubectl sends as protobuf (`kubectl create namespace`, `serviceaccount`,
//! `service` and `token`, since 1.32), read into the same JSON as all others. PURE.
//!
//! A field that has a value and is not in the tables below is an error, so that nothing a
//! client asked for is lost without a word.

use serde_json::{Map, Value, json};

use super::status::{Reason, Refusal};

/// What a body of this kind begins with.
const MAGIC: &[u8] = b"k8s\0";

/// How the value of a field is written.
#[derive(Debug)]
enum Kind {
    Text,
    Number,
    Texts,
    /// A map of strings: entries with a key and a value.
    TextMap,
    Message(Fields),
    Messages(Fields),
    /// A message that stands for a number or a string.
    NumberOrText,
}

/// Number, name and kind of each known field of a message.
type Fields = &'static [(u64, &'static str, Kind)];

const METADATA: Fields = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (4, "selfLink", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "generation", Kind::Number),
    // Empty whenever a client sends it: the time is the server's to say.
    (8, "creationTimestamp", Kind::Message(&[])),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (14, "finalizers", Kind::Texts),
];

const NAMESPACE: Fields = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(&[(1, "finalizers", Kind::Texts)])),
    (3, "status", Kind::Message(&[(1, "phase", Kind::Text)])),
];

const SERVICE_ACCOUNT: Fields = &[(1, "metadata", Kind::Message(METADATA))];

const SERVICE_PORT: Fields = &[
    (1, "name", Kind::Text),
    (2, "protocol", Kind::Text),
    (3, "port", Kind::Number),
    (4, "targetPort", Kind::NumberOrText),
];

const SERVICE: Fields = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "ports", Kind::Messages(SERVICE_PORT)),
            (2, "selector", Kind::TextMap),
            (3, "clusterIP", Kind::Text),
            (4, "type", Kind::Text),
            (10, "externalName", Kind::Text),
            (18, "clusterIPs", Kind::Texts),
        ]),
    ),
    (3, "status", Kind::Message(&[(1, "loadBalancer", Kind::Message(&[]))])),
];

const NUMBER_OR_TEXT: Fields =
    &[(1, "isText", Kind::Number), (2, "number", Kind::Number), (3, "text", Kind::Text)];

const BOUND_OBJECT: Fields = &[
    (1, "kind", Kind::Text),
    (2, "apiVersion", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
];

const TOKEN_REQUEST: Fields = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "audiences", Kind::Texts),
            (3, "boundObjectRef", Kind::Message(BOUND_OBJECT)),
            (4, "expirationSeconds", Kind::Number),
        ]),
    ),
    (
        3,
        "status",
        Kind::Message(&[(1, "token", Kind::Text), (2, "expirationTimestamp", Kind::Message(&[]))]),
    ),
];

const TYPE: Fields = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];

/// Reads a whole body: the envelope that names the kind, and the object in it.
pub(crate) fn read(body: &[u8]) -> Result<Value, Refusal> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| malformed("it does not begin as protobuf of Kubernetes does"))?;
    let (mut type_meta, mut raw) = (Value::Null, &[][..]);
    for field in Wire(envelope) {
        match field? {
            (1, Part::Bytes(bytes)) => type_meta = message(TYPE, bytes)?,
            (2, Part::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let fields = match type_meta["kind"].as_str() {
        Some("Namespace") => NAMESPACE,
        Some("Service") => SERVICE,
        Some("ServiceAccount") => SERVICE_ACCOUNT,
        Some("TokenRequest") => TOKEN_REQUEST,
        _ => {
            let why = format!("{} is not read as protobuf here; send JSON", type_meta["kind"]);
            return Err(Refusal::new(Reason::UnsupportedMediaType, why));
        }
    };
    let mut object = message(fields, raw)?;
    for field in ["apiVersion", "kind"] {
        object[field] = type_meta[field].clone();
    }
    Ok(object)
}

fn malformed(why: &str) -> Refusal {
    Refusal::bad_request(format!("the body is not well-formed protobuf: {why}"))
}

fn message(fields: Fields, bytes: &[u8]) -> Result<Value, Refusal> {
    let mut object = Map::new();
    for field in Wire(bytes) {
        let (number, part) = field?;
        let Some((_, name, kind)) = fields.iter().find(|(known, _, _)| *known == number) else {
            if part.is_default() {
                continue;
            }
            let why = format!("field {number} of the protobuf body is not read here; send JSON");
            return Err(Refusal::not_implemented(why));
        };
        let slot = object.entry(*name).or_insert(Value::Null);
        match (kind, part) {
            (Kind::Text, Part::Bytes(bytes)) => *slot = json!(text(bytes)?),
            (Kind::Number, Part::Number(number)) => *slot = json!(number.cast_signed()),
            (Kind::Message(fields), Part::Bytes(bytes)) => *slot = message(fields, bytes)?,
            (Kind::Messages(fields), Part::Bytes(bytes)) => {
                let item = message(fields, bytes)?;
                list(slot).push(item);
            }
            (Kind::NumberOrText, Part::Bytes(bytes)) => {
                let value = message(NUMBER_OR_TEXT, bytes)?;
                let field = if value["isText"] == 1 { "text" } else { "number" };
                *slot = value[field].clone();
            }
            (Kind::Texts, Part::Bytes(bytes)) => list(slot).push(json!(text(bytes)?)),
            (Kind::TextMap, Part::Bytes(bytes)) => {
                let entry = message(&[(1, "key", Kind::Text), (2, "value", Kind::Text)], bytes)?;
                let key = entry["key"].as_str().unwrap_or_default();
                let value = entry["value"].as_str().unwrap_or_default();
                super::meta::map_mut(slot).insert(key.to_owned(), json!(value));
            }
            _ => return Err(malformed(&format!("{name} has a value of another type"))),
        }
    }
    // Strings and messages that were never set are written empty; in JSON they are left out.
    object.retain(|_, value| *value != json!("") && *value != json!({}));
    Ok(Value::Object(object))
}

fn list(slot: &mut Value) -> &mut Vec<Value> {
    if !slot.is_array() {
        *slot = json!([]);
    }
    slot.as_array_mut().expect("it was made a list one line above")
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| malformed("a string is not UTF-8"))
}

/// The value of one field as it is on the wire.
#[derive(Debug)]
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Part<'_> {
    fn is_default(&self) -> bool {
        match self {
            Part::Number(number) => *number == 0,
            Part::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// The fields of a message, one after the other; ends after the first error.
struct Wire<'a>(&'a [u8]);

impl<'a> Iterator for Wire<'a> {
    type Item = Result<(u64, Part<'a>), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Wire<'a> {
    fn field(&mut self) -> Result<(u64, Part<'a>), Refusal> {
        let tag = self.varint()?;
        let part = match tag & 7 {
            0 => Part::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let split = self.0.split_at_checked(length);
                let (bytes, rest) = split.ok_or_else(|| malformed("it ends inside a field"))?;
                self.0 = rest;
                Part::Bytes(bytes)
            }
            other => return Err(malformed(&format!("wire type {other} is not used here"))),
        };
        Ok((tag >> 3, part))
    }

    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) =
                self.0.split_first().ok_or_else(|| malformed("it ends inside a number"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number is longer than ten bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw), field(3, b"")].concat()
    }

    #[test]
    fn a_namespace_is_read() {
        let label = [field(1, b"team"), field(2, b"a")].concat();
        let metadata = [field(1, b"shop"), field(8, b""), field(11, &label)].concat();
        let raw = [field(1, &metadata), field(2, b""), field(3, &field(1, b""))].concat();
        assert_eq!(
            read(&body("Namespace", &raw)),
            Ok(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "shop", "labels": {"team": "a"}},
            }))
        );
    }

    #[test]
    fn a_token_request_is_read() {
        let spec = [field(1, b"istio-ca"), field(1, b"b"), vec![4 << 3, 0x90, 0x1c]].concat();
        let request = read(&body("TokenRequest", &field(2, &spec))).unwrap();
        let want = json!({"audiences": ["istio-ca", "b"], "expirationSeconds": 3600});
        assert_eq!(request["spec"], want);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let whole = body("Namespace", &field(1, &field(1, b"shop")));
        let unknown = body("ServiceAccount", &field(2, b"secret"));
        for (bytes, reason) in [
            (b"{}".to_vec(), Reason::BadRequest),
            (whole[..whole.len() - 3].to_vec(), Reason::BadRequest),
            (body("Namespace", &[0xff; 12]), Reason::BadRequest),
            (body("Namespace", &field(1, &field(1, &[0xff]))), Reason::BadRequest),
            (body("Namespace", &[1 << 3, 1]), Reason::BadRequest),
            (body("Pod", b""), Reason::UnsupportedMediaType),
            (unknown, Reason::NotImplemented),
        ] {
            assert_eq!(read(&bytes).unwrap_err().reason, reason, "{bytes:?}");
        }
    }
}
