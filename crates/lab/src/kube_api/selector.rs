//! Label and field selectors: parsed once, then asked about objects. PURE.

use serde_json::Value;

use super::names;
use super::status::Refusal;

/// A conjunction of requirements on labels. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Parses the equality form (`a=b,c!=d`) and the set form (`a in (b,c),!d`).
    pub(crate) fn parse(text: &str) -> Result<LabelSelector, Refusal> {
        let wrong = |why: String| Refusal::bad_request(format!("label selector \"{text}\": {why}"));
        let parts = split_outside_parentheses(text).map_err(wrong)?;
        let requirements = parts.into_iter().map(requirement).collect::<Result<_, _>>();
        requirements.map(LabelSelector).map_err(wrong)
    }

    /// Whether the object's labels meet every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|requirement| {
            let value = labels.and_then(|l| l.get(&requirement.key)).and_then(Value::as_str);
            requirement.test.holds(value)
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Test::Above(limit) => number().is_some_and(|n| n > *limit),
            Test::Below(limit) => number().is_some_and(|n| n < *limit),
        }
    }
}

fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (mut parts, mut start, mut open) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if open => return Err("parentheses inside parentheses".to_owned()),
            '(' => open = true,
            ')' if !open => return Err("a closing parenthesis without its opening".to_owned()),
            ')' => open = false,
            ',' if !open => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err("a parenthesis is not closed".to_owned());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let part = part.trim();
    let (key, test) = if let Some(key) = part.strip_prefix('!') {
        (key.trim(), Test::Absent)
    } else if let Some((left, values)) = part.split_once('(') {
        set_form(left, values)?
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Test::NotIn(vec![label_value(value)?]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Test::In(vec![label_value(value)?]))
    } else if let Some((key, value)) = part.split_once('>') {
        (key, Test::Above(number(value)?))
    } else if let Some((key, value)) = part.split_once('<') {
        (key, Test::Below(number(value)?))
    } else {
        (part, Test::Exists)
    };
    let key = key.trim();
    names::label_key(key).map_err(|why| format!("key \"{key}\": {why}"))?;
    Ok(Requirement { key: key.to_owned(), test })
}

fn set_form<'a>(left: &'a str, values: &str) -> Result<(&'a str, Test), String> {
    let values = values.strip_suffix(')').ok_or("text after the closing parenthesis")?;
    let values: Vec<String> = values.split(',').map(label_value).collect::<Result<_, _>>()?;
    let mut words = left.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => Ok((key, Test::In(values))),
        (Some(key), Some("notin"), None) => Ok((key, Test::NotIn(values))),
        _ => Err(format!("\"{}\" is neither \"key in\" nor \"key notin\"", left.trim())),
    }
}

fn label_value(text: &str) -> Result<String, String> {
    let value = text.trim();
    names::label_value(value).map_err(|why| format!("value \"{value}\": {why}"))?;
    Ok(value.to_owned())
}

fn number(text: &str) -> Result<i64, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("\"{text}\" is not a whole number"))
}

/// A conjunction of comparisons of fields with values. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<FieldTest>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTest {
    field: String,
    value: String,
    equal: Equal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equal {
    Yes,
    No,
}

impl FieldSelector {
    /// Parses `a=b,c!=d`, where only `metadata.name`, `metadata.namespace` and the `fields` of
    /// the resource may be asked for.
    pub(crate) fn parse(text: &str, fields: &[&str]) -> Result<FieldSelector, Refusal> {
        let mut tests = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (field, equal, value) = split_comparison(part).ok_or_else(|| {
                let why = format!("field selector \"{text}\": \"{part}\" compares nothing");
                Refusal::bad_request(why)
            })?;
            if !["metadata.name", "metadata.namespace"].contains(&field) && !fields.contains(&field)
            {
                let why = format!("field selector \"{text}\": field \"{field}\" is not selectable");
                return Err(Refusal::bad_request(why));
            }
            tests.push(FieldTest { field: field.to_owned(), value: value.to_owned(), equal });
        }
        Ok(FieldSelector(tests))
    }

    /// The selector that a path with a name in it stands for.
    pub(crate) fn and_name(mut self, name: &str) -> FieldSelector {
        let (field, value) = ("metadata.name".to_owned(), name.to_owned());
        self.0.push(FieldTest { field, value, equal: Equal::Yes });
        self
    }

    /// Whether the object's fields meet every comparison; a field that is not there is empty.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|test| {
            let pointer = format!("/{}", test.field.replace('.', "/"));
            let value = object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
            (value == test.value) == (test.equal == Equal::Yes)
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn split_comparison(part: &str) -> Option<(&str, Equal, &str)> {
    let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
        (field, Equal::No, value)
    } else {
        let (field, value) = part.split_once("==").or_else(|| part.split_once('='))?;
        (field, Equal::Yes, value)
    };
    Some((field.trim(), equal, value.trim()))
}

/// Both selectors of a list or watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Selection {
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front", "n": "5", "istio.io/dataplane-mode": "ambient"}}});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("nothing!=db", true),
            ("app!=web", false),
            ("app in (db, web)", true),
            ("app in (db),tier=front", false),
            ("app notin (db)", true),
            ("nothing notin (db)", true),
            ("app notin (web,db)", false),
            ("app", true),
            ("nothing", false),
            ("!app", false),
            ("!nothing", true),
            ("n>4", true),
            ("n<5", false),
            ("istio.io/dataplane-mode=ambient", true),
            ("app in ()", false),
        ];
        for (text, want) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&pod), want, "{text}");
        }
    }

    #[test]
    fn malformed_label_selectors_are_refused_by_name() {
        for text in [
            "a in b",
            "a in (b",
            "a)",
            "=b",
            ",",
            "a=b c",
            "a like (b)",
            "a>x",
            "-a",
            "a in (b)c",
            "a b",
        ] {
            let refusal = LabelSelector::parse(text).unwrap_err();
            assert!(refusal.message.contains(text), "{text}: {}", refusal.message);
        }
    }

    #[test]
    fn field_selectors() {
        let pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "n1"}});
        let fields = &["spec.nodeName", "status.phase"];
        let cases = [
            ("", true),
            ("spec.nodeName=n1", true),
            ("spec.nodeName==n1,metadata.name=a", true),
            ("spec.nodeName!=n1", false),
            ("metadata.namespace!=m", true),
            ("status.phase=", true),
            ("status.phase=Running", false),
        ];
        for (text, want) in cases {
            let selector = FieldSelector::parse(text, fields).unwrap();
            assert_eq!(selector.matches(&pod), want, "{text}");
        }
        for text in ["spec.hostname=x", "metadata.uid=1", "spec.nodeName"] {
            assert!(FieldSelector::parse(text, fields).is_err(), "{text}");
        }
    }
}
