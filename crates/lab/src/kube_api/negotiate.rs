//! What form the answer shall have and what form the body has, from the headers. PURE.

use super::action::PatchKind;
use super::apply::Force;
use super::status::{Reason, Refusal};
use super::table::Include;

/// How objects are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    Object,
    /// Only `metadata`, as `PartialObjectMetadata`.
    Metadata,
    Table {
        version: &'static str,
        include: Include,
    },
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

/// The first form in the Accept header that can be served. Clients list them by preference,
/// so weights are not looked at.
pub(crate) fn view(accept: &str, include: Option<&str>) -> Result<View, Refusal> {
    let include = match include {
        None | Some("Metadata") => Include::Metadata,
        Some("None") => Include::Nothing,
        Some("Object") => Include::Object,
        Some(other) => {
            let why = format!("includeObject={other} is none of None, Metadata, Object");
            return Err(Refusal::bad_request(why));
        }
    };
    if accept.trim().is_empty() {
        return Ok(View::Object);
    }
    accept.split(',').find_map(|range| one_view(range, include)).ok_or_else(|| {
        let why = format!("only application/json can be sent, the request accepts \"{accept}\"");
        Refusal::new(Reason::NotAcceptable, why)
    })
}

fn one_view(range: &str, include: Include) -> Option<View> {
    let mut parts = range.split(';').map(str::trim);
    if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
        return None;
    }
    let (mut form, mut version, mut group) = ("", "", "");
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name {
            "as" => form = value,
            "v" => version = value,
            "g" => group = value,
            _ => {}
        }
    }
    match (form, group, version) {
        ("", _, _) => Some(View::Object),
        ("Table", "meta.k8s.io", "v1") => Some(View::Table { version: "v1", include }),
        ("Table", "meta.k8s.io", "v1beta1") => Some(View::Table { version: "v1beta1", include }),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Some(View::Metadata)
        }
        _ => None,
    }
}

fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// The format of a body that is an object.
pub(crate) fn body_format(content_type: &str) -> Result<BodyFormat, Refusal> {
    match media_type(content_type) {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyFormat::Protobuf),
        other => Err(unsupported(
            other,
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// What kind of patch a body is, and its format.
pub(crate) fn patch_kind(
    content_type: &str,
    force: Force,
) -> Result<(PatchKind, BodyFormat), Refusal> {
    Ok(match media_type(content_type) {
        "application/merge-patch+json" => (PatchKind::Merge, BodyFormat::Json),
        "application/json-patch+json" => (PatchKind::Json, BodyFormat::Json),
        "application/strategic-merge-patch+json" => (PatchKind::Strategic, BodyFormat::Json),
        "application/apply-patch+yaml" => (PatchKind::Apply(force), BodyFormat::Yaml),
        other => {
            let known = "application/merge-patch+json, application/json-patch+json, \
                         application/strategic-merge-patch+json, application/apply-patch+yaml";
            return Err(unsupported(other, known));
        }
    })
}

fn unsupported(media_type: &str, known: &str) -> Refusal {
    let why = format!("the body is \"{media_type}\", which is none of {known}");
    Refusal::new(Reason::UnsupportedMediaType, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_served_is_taken() {
        let table = |version| View::Table { version, include: Include::Metadata };
        let cases = [
            ("", Some(View::Object)),
            ("*/*", Some(View::Object)),
            ("application/json, */*", Some(View::Object)),
            ("application/vnd.kubernetes.protobuf,application/json", Some(View::Object)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(table("v1")),
            ),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1beta1, application/json",
                Some(table("v1beta1")),
            ),
            ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Some(View::Metadata)),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(View::Metadata),
            ),
            ("application/json;as=Poem;g=meta.k8s.io;v=v1", None),
            ("application/vnd.kubernetes.protobuf", None),
        ];
        for (accept, want) in cases {
            assert_eq!(view(accept, None).ok(), want, "{accept}");
        }
        assert!(view("*/*", Some("Everything")).is_err());
    }

    #[test]
    fn patches_are_told_by_their_media_type() {
        let kind = |text| patch_kind(text, Force::No).map(|(kind, _)| kind);
        assert_eq!(kind("application/merge-patch+json"), Ok(PatchKind::Merge));
        assert_eq!(kind("application/apply-patch+yaml"), Ok(PatchKind::Apply(Force::No)));
        assert_eq!(kind("application/json").unwrap_err().reason, Reason::UnsupportedMediaType);
        assert_eq!(body_format("application/json; charset=utf-8"), Ok(BodyFormat::Json));
        assert!(body_format("application/cbor").is_err());
    }
}
