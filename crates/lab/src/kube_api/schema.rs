//! How lists merge: a small table of the merge keys of the kinds served here. PURE.
//!
//! The facts are those of the published API types (`x-kubernetes-list-type`, `patchMergeKey`).

/// Which rules hold for the lists of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Types {
    /// Known to clients: strategic merge patch works, lists merge by the table.
    BuiltIn,
    /// The same, for services: their lists of ports are keyed otherwise than pods'.
    Services,
    /// The same, for slices of endpoints: none of their lists is merged.
    Slices,
    /// A custom resource: lists outside `metadata` are replaced as a whole.
    Custom,
}

/// What one list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// Values that are there once.
    Set,
    /// Objects told apart by these fields. The first alone is the strategic merge key.
    Keyed(&'static [&'static str]),
}

/// What the list at a field is. But for those that [`Types`] tells apart no two kinds use
/// one field name for lists that merge differently, so the name of the field is enough.
pub(crate) fn list_kind(types: Types, field: &str) -> ListKind {
    match (types, field) {
        (_, "finalizers") => ListKind::Set,
        (_, "ownerReferences") => ListKind::Keyed(&["uid"]),
        (Types::Custom | Types::Slices, _) => ListKind::Atomic,
        (Types::Services, "ports") => ListKind::Keyed(&["port", "protocol"]),
        (Types::BuiltIn | Types::Services, name) => built_in(name),
    }
}

fn built_in(field: &str) -> ListKind {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "resourceClaims" => ListKind::Keyed(&["name"]),
        "ports" => ListKind::Keyed(&["containerPort", "protocol"]),
        "volumeMounts" => ListKind::Keyed(&["mountPath"]),
        "volumeDevices" => ListKind::Keyed(&["devicePath"]),
        "hostAliases" | "podIPs" | "hostIPs" => ListKind::Keyed(&["ip"]),
        "conditions" | "addresses" => ListKind::Keyed(&["type"]),
        "topologySpreadConstraints" => ListKind::Keyed(&["topologyKey", "whenUnsatisfiable"]),
        "podCIDRs" => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

/// The value that a key field has when it is left out.
pub(crate) fn key_default(field: &str) -> Option<&'static str> {
    (field == "protocol").then_some("TCP")
}
