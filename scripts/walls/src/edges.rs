//! Checks the dependencies. Pure: works on what `cargo metadata` printed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use crate::Breach;
use crate::house::{BANNED, COLUMNS, May, Row, TABLE};

/// Who depends on whom, as packages are resolved for this workspace.
#[derive(Debug, Default)]
pub struct Graph {
    /// Names by package id: two versions of a crate are two packages.
    names: BTreeMap<String, String>,
    /// Ids of our own packages.
    members: BTreeSet<String>,
    /// Normal dependencies, by id.
    normal: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads the output of `cargo metadata --format-version 1`.
    pub fn read(metadata: &Value) -> Option<Self> {
        let mut graph = Self::default();
        for package in metadata["packages"].as_array()? {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            graph.names.insert(id.to_owned(), name.to_owned());
        }
        for member in metadata["workspace_members"].as_array()? {
            graph.members.insert(member.as_str()?.to_owned());
        }
        for node in metadata["resolve"]["nodes"].as_array()? {
            let id = node["id"].as_str()?;
            let normal = node["deps"].as_array()?.iter().filter(|dep| is_normal(dep));
            let normal = normal.filter_map(|dep| Some(dep["pkg"].as_str()?.to_owned()));
            graph.normal.insert(id.to_owned(), normal.collect());
        }
        Some(graph)
    }

    fn name(&self, id: &str) -> &str {
        self.names.get(id).map_or("unknown", String::as_str)
    }

    fn direct(&self, id: &str) -> impl Iterator<Item = &String> {
        self.normal.get(id).into_iter().flatten()
    }

    /// Everything that `id` uses, with the way to it, not looking behind packages of
    /// ours: those answer for themselves.
    fn reach(&self, id: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut seen = BTreeSet::from([id.to_owned()]);
        let mut queue = VecDeque::from([(id.to_owned(), vec![self.name(id)])]);
        while let Some((at, way)) = queue.pop_front() {
            for next in self.direct(&at).filter(|next| seen.insert((*next).clone())) {
                let way = [way.as_slice(), &[self.name(next)]].concat();
                ways.entry(self.name(next)).or_insert_with(|| way.clone());
                if !self.members.contains(next) {
                    queue.push_back((next.clone(), way));
                }
            }
        }
        ways
    }
}

/// Everything that is wrong with the dependencies.
pub fn check(graph: &Graph) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for member in &graph.members {
        let package = graph.name(member);
        match TABLE.iter().find(|row| row.package == package) {
            Some(row) => breaches.extend(check_member(graph, member, row)),
            None => breaches.push(Breach {
                place: package.to_owned(),
                rule: "has no row in the table of the house".to_owned(),
            }),
        }
    }
    breaches
}

/// Banned crates among those that are built, one a line with the name first, as
/// `cargo tree --prefix none` prints them. The metadata would not do: it lists optional
/// dependencies that a feature mentions but does not turn on.
pub fn check_banned(tree: &str) -> Vec<Breach> {
    let built: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let found = BANNED.iter().filter(|(banned, _)| built.contains(banned));
    let breach = |(banned, why): &(&str, &str)| Breach {
        place: format!("{banned} (see cargo tree -i {banned})"),
        rule: format!("banned: {why}"),
    };
    found.map(breach).collect()
}

fn check_member(graph: &Graph, member: &str, row: &Row) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (used, way) in graph.reach(member) {
        let column = COLUMNS.iter().find(|column| column.packages.contains(&used));
        if let Some(column) = column.filter(|column| !may(row, column.name)) {
            let rule = format!("{} may not use {}", row.package, column.name);
            breaches.push(Breach { place: way.join(" -> "), rule });
        }
    }
    let direct = graph.direct(member).map(|id| graph.name(id));
    for used in direct.filter(|used| row.only.is_some_and(|only| !only.contains(used))) {
        let rule = format!("{} stays small: this is none of its few dependencies", row.package);
        breaches.push(Breach { place: format!("{} -> {used}", row.package), rule });
    }
    breaches
}

fn may(row: &Row, column: &str) -> bool {
    row.may.iter().any(|may| match may {
        May::Everywhere(name) | May::In(name, _) => *name == column,
    })
}

fn is_normal(dependency: &Value) -> bool {
    let kinds = dependency["dep_kinds"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A graph of `from -> to` lines; ` ~> ` is a dev-dependency. Ours are the rows.
    fn graph(edges: &[&str]) -> Graph {
        let mut nodes: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for edge in edges {
            let (separator, kind) =
                if edge.contains(" ~> ") { (" ~> ", json!("dev")) } else { (" -> ", json!(null)) };
            let (from, to) = edge.split_once(separator).unwrap();
            nodes.entry(to).or_default();
            let dependency = json!({"name": to, "pkg": to, "dep_kinds": [{"kind": kind}]});
            nodes.entry(from).or_default().push(dependency);
        }
        let is_member = |name: &str| TABLE.iter().any(|row| row.package == name);
        let metadata = json!({
            "packages": nodes.keys().map(|name| json!({"id": name, "name": name}))
                .collect::<Vec<_>>(),
            "workspace_members":
                nodes.keys().filter(|name| is_member(name)).collect::<Vec<_>>(),
            "resolve": {"nodes": nodes.iter()
                .map(|(name, deps)| json!({"id": name, "deps": deps})).collect::<Vec<_>>()},
        });
        Graph::read(&metadata).unwrap()
    }

    fn found(edges: &[&str]) -> Vec<String> {
        check(&graph(edges)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_table_allows_passes() {
        let fine = [
            "cni-plugin -> plugin-api",
            "cni-plugin -> nix",
            "node-agent -> kube",
            "node-agent -> tonic",
            "kube -> tokio",
            "ztunnel -> tonic",
            "conformance -> lab",
            "lab -> control",
            "control -> kube",
            "control -> tonic",
        ];
        assert_eq!(found(&fine), [""; 0]);
    }

    #[test]
    fn a_forbidden_edge_is_shown_with_its_way() {
        for (edges, place) in [
            (&["ztunnel -> capture"][..], "ztunnel -> capture"),
            (&["ztunnel -> kube"], "ztunnel -> kube"),
            (&["mesh -> foreign", "foreign -> tokio"], "mesh -> foreign -> tokio"),
            (&["conformance -> foreign", "foreign -> tonic"], "conformance -> foreign -> tonic"),
            (&["node-agent -> ztunnel"], "node-agent -> ztunnel"),
            (&["conformance -> netns"], "conformance -> netns"),
            (&["control -> lab"], "control -> lab"),
        ] {
            let breaches = found(edges);
            assert_eq!(breaches.len(), 1, "{breaches:?}");
            assert!(breaches[0].starts_with(&format!("{place}: ")), "{breaches:?}");
        }
    }

    #[test]
    fn our_packages_answer_for_themselves() {
        assert_eq!(found(&["conformance -> lab", "lab -> control", "control -> tonic"]), [""; 0]);
    }

    #[test]
    fn dependencies_of_tests_are_free() {
        assert_eq!(found(&["cni-plugin ~> netns", "zds ~> tonic"]), [""; 0]);
    }

    #[test]
    fn small_packages_stay_small() {
        assert_eq!(
            found(&["cni-plugin -> clap"]),
            ["cni-plugin -> clap: cni-plugin stays small: this is none of its few dependencies"]
        );
    }

    #[test]
    fn banned_crates_are_found_by_their_whole_name() {
        let tree = "ztunnel v0.1.0 (/x)\nring v0.17.14\nstring v1.0.0\nring v0.17.14 (*)\n";
        let breaches = check_banned(tree);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].place.starts_with("ring "), "{breaches:?}");
        assert_eq!(check_banned("string v1.0.0\n"), []);
    }

    #[test]
    fn a_package_without_a_row_is_found() {
        let mut graph = graph(&["ztunnel -> mesh"]);
        graph.names.insert("new".to_owned(), "new".to_owned());
        graph.members.insert("new".to_owned());
        assert!(check(&graph)[0].place == "new");
    }

    #[test]
    fn metadata_of_another_shape_is_refused() {
        assert!(Graph::read(&json!({})).is_none());
        assert!(Graph::read(&json!({"packages": [{"id": 7}]})).is_none());
    }
}
