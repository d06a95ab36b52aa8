//! What `kubectl get` prints: tables whose cells the server fills. PURE.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::meta;

/// One object to be shown, and when.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// In its stored form.
    pub(crate) object: &'a Value,
    pub(crate) now: OffsetDateTime,
}

impl Row<'_> {
    /// How long ago a moment was, as people read it.
    pub(crate) fn age_of(&self, timestamp: &str) -> Value {
        match meta::parse_timestamp(timestamp) {
            Some(moment) => json!(duration((self.now - moment).whole_seconds().max(0))),
            None => json!("<unknown>"),
        }
    }
}

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    name: &'static str,
    /// Clients know the name of the object by the format `name`.
    format: &'static str,
    /// 0 is always shown, 1 only in wide output.
    priority: u8,
    cell: fn(&Row) -> Value,
}

impl Column {
    pub(crate) const fn text(name: &'static str, priority: u8, cell: fn(&Row) -> Value) -> Column {
        Column { name, format: "", priority, cell }
    }

    /// The same column, in wide output only.
    pub(crate) const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": "string", "format": self.format,
            "description": self.name, "priority": self.priority,
        })
    }
}

/// The column every table begins with.
pub(crate) const NAME: Column =
    Column { name: "Name", format: "name", priority: 0, cell: |row| meta::name(row.object).into() };

/// How old the object is.
pub(crate) const AGE: Column =
    Column::text("Age", 0, |row| row.age_of(meta::text(row.object, "/metadata/creationTimestamp")));

/// How much of the object goes along with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// A table of these objects (stored form, and the form to include).
pub(crate) fn render<'a>(
    columns: &[Column],
    version: &str,
    metadata: &Value,
    rows: impl Iterator<Item = (Row<'a>, Value)>,
) -> Value {
    let definitions: Vec<Value> = columns.iter().map(Column::definition).collect();
    let rows: Vec<Value> = rows
        .map(|(row, object)| {
            let cells: Vec<Value> = columns.iter().map(|column| (column.cell)(&row)).collect();
            json!({ "cells": cells, "object": object })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// Seconds in at most two units, coarser the longer it is.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::kinds::pods::PODS;

    #[test]
    fn durations() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3600, "60m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_158_400, "2y1d"),
        ] {
            assert_eq!(duration(seconds), want);
        }
    }

    #[test]
    fn a_pod_has_the_columns_users_know() {
        let pod = json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}], "nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "containerStatuses": [{"name": "a", "ready": true, "restartCount": 2}]},
        });
        let now = meta::parse_timestamp("2026-01-01T00:01:00Z").unwrap();
        let rows = std::iter::once((Row { object: &pod, now }, Value::Null));
        let table = render(PODS.columns, "v1", &json!({}), rows);
        let names: Vec<_> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].clone())
            .collect();
        assert_eq!(names, ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node"]);
        assert_eq!(
            table["rows"][0]["cells"],
            json!(["web", "1/1", "Running", "2", "60s", "10.0.0.1", "n1"])
        );
    }
}
