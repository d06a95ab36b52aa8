//! Objects and lists in the form a client asked for. PURE.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::negotiate::View;
use super::reads::Listing;
use super::resource::Resource;
use super::table::{self, Include, Row};

/// One stored object.
pub(crate) fn object(
    view: &View,
    resource: &Resource,
    stored: &Value,
    now: OffsetDateTime,
) -> Value {
    match view {
        View::Object => resource.show(stored),
        View::Metadata => metadata_only(stored),
        View::Table { version, include } => {
            let metadata = json!({ "resourceVersion": stored["metadata"]["resourceVersion"] });
            let row = row(resource, stored, *include, now);
            table::render(resource.columns, version, &metadata, std::iter::once(row))
        }
    }
}

/// One page of a list.
pub(crate) fn list(view: &View, resource: &Resource, page: &Listing, now: OffsetDateTime) -> Value {
    let mut metadata = json!({ "resourceVersion": page.version.to_string() });
    if let Some(next) = &page.next {
        metadata["continue"] = json!(next);
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items = page.items.iter().map(Arc::as_ref);
    match view {
        View::Object => json!({
            "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
            "metadata": metadata, "items": items.map(|item| resource.show(item)).collect::<Vec<_>>(),
        }),
        View::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata, "items": items.map(metadata_only).collect::<Vec<_>>(),
        }),
        View::Table { version, include } => {
            let rows = items.map(|item| row(resource, item, *include, now));
            table::render(resource.columns, version, &metadata, rows)
        }
    }
}

fn metadata_only(stored: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": stored["metadata"],
    })
}

fn row<'a>(
    resource: &Resource,
    stored: &'a Value,
    include: Include,
    now: OffsetDateTime,
) -> (Row<'a>, Value) {
    let included = match include {
        Include::Nothing => Value::Null,
        Include::Metadata => metadata_only(stored),
        Include::Object => resource.show(stored),
    };
    (Row { object: stored, now }, included)
}
