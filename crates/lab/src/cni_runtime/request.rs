//! What a plugin is told: its environment and its standard input. PURE, but for the order
//! of `CNI_ARGS`, which the caller shuffles by a seed.

use std::hash::BuildHasher;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::conflist::{Conflist, Plugin};

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Attach the container to the network.
    Add,
    /// Undo that.
    Del,
    /// Tell whether it still holds.
    Check,
    /// Tell whether an ADD would be served.
    Status,
    /// Let go of what belongs to no valid attachment.
    Gc,
}

impl Verb {
    /// As `CNI_COMMAND` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }
}

/// What a call is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// ADD, DEL and CHECK: an attachment, and the result so far.
    Attached(&'a Attachment, Option<&'a Value>),
    /// STATUS: the whole network.
    Network,
    /// GC: the whole network, all of whose valid attachments these are.
    Valid(&'a [&'a Attachment]),
}

impl<'a> About<'a> {
    fn attachment(self) -> Option<&'a Attachment> {
        match self {
            Self::Attached(attachment, _) => Some(attachment),
            Self::Network | Self::Valid(_) => None,
        }
    }
}

/// One interface of one container on one network.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The sandbox, `CNI_CONTAINERID`.
    pub container_id: String,
    /// Path of the namespace; a DEL after the sandbox is gone has none.
    pub netns: Option<PathBuf>,
    /// Name of the interface inside, `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`; each call puts them in another order, as containerd does.
    pub args: Vec<(String, String)>,
    /// Arguments by capability; a plugin gets those that it declares.
    pub capability_args: Map<String, Value>,
}

impl Attachment {
    /// The same after the sandbox is gone.
    #[must_use]
    pub fn without_netns(&self) -> Self {
        Self { netns: None, ..self.clone() }
    }

    /// Whether the specification takes both for one: by container and interface.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.container_id, &self.ifname) == (&other.container_id, &other.ifname)
    }
}

/// The environment of one call: all variables, with nothing in those that the verb does not
/// have. `order` decides the order of the arguments.
pub(crate) fn environment(
    verb: Verb,
    about: About<'_>,
    folders: &[PathBuf],
    order: &impl BuildHasher,
) -> Vec<(String, String)> {
    let attachment = about.attachment();
    let args = attachment.map(|attachment| attachment.args.as_slice()).unwrap_or_default();
    let mut args: Vec<_> = args.iter().map(|(k, v)| format!("{k}={v}")).collect();
    args.sort_by_cached_key(|arg| order.hash_one(arg));
    let netns = attachment.and_then(|attachment| attachment.netns.as_deref()).map(Path::display);
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let text = |part: fn(&Attachment) -> &String| attachment.map(part).cloned().unwrap_or_default();
    let mut environment = vec![
        ("CNI_COMMAND", verb.as_str().to_owned()),
        ("CNI_CONTAINERID", text(|attachment| &attachment.container_id)),
        ("CNI_NETNS", netns.map(|path| path.to_string()).unwrap_or_default()),
        ("CNI_IFNAME", text(|attachment| &attachment.ifname)),
        ("CNI_ARGS", args.join(";")),
        ("CNI_PATH", folders.join(":")),
    ];
    environment.sort_by_cached_key(|(name, _)| order.hash_one(name));
    environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The standard input of one call: the entry as written, the list's name and version, and
/// what the call is about.
pub(crate) fn stdin(list: &Conflist, plugin: &Plugin, about: About<'_>) -> Value {
    let mut config = plugin.config.clone();
    config.insert("name".into(), list.name.clone().into());
    config.insert("cniVersion".into(), list.version.clone().into());
    match about {
        About::Attached(attachment, prev_result) => {
            attached(&mut config, plugin, attachment, prev_result);
        }
        About::Network => {}
        About::Valid(valid) => {
            let valid: Vec<_> = valid
                .iter()
                .map(|it| json!({"containerID": it.container_id, "ifname": it.ifname}))
                .collect();
            // The specification's name, and the one that its first text had by mistake.
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                config.insert(key.into(), valid.clone().into());
            }
        }
    }
    config.into()
}

/// The arguments of declared capabilities, and the result so far.
fn attached(
    config: &mut Map<String, Value>,
    plugin: &Plugin,
    attachment: &Attachment,
    prev_result: Option<&Value>,
) {
    let runtime_config: Map<String, Value> = attachment
        .capability_args
        .iter()
        .filter(|(name, _)| plugin.capabilities.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !runtime_config.is_empty() {
        config.insert("runtimeConfig".into(), runtime_config.into());
    }
    if let Some(result) = prev_result {
        config.insert("prevResult".into(), result.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::RandomState;

    use super::*;

    fn attachment() -> Attachment {
        let args = [("IgnoreUnknown", "1"), ("K8S_POD_NAME", "p"), ("K8S_POD_NAMESPACE", "n")];
        Attachment {
            container_id: "c1".into(),
            netns: Some("/run/netns/x".into()),
            ifname: "eth0".into(),
            args: args.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            capability_args: Map::from_iter([("portMappings".to_owned(), json!([1]))]),
        }
    }

    fn value<'a>(environment: &'a [(String, String)], name: &str) -> &'a str {
        &environment.iter().find(|(n, _)| n == name).unwrap().1
    }

    #[test]
    fn arguments_come_in_any_order_and_are_always_complete() {
        let folders = ["/a".into(), "/b".into()];
        let mut orders = HashSet::new();
        for _ in 0..200 {
            let all = environment(
                Verb::Add,
                About::Attached(&attachment(), None),
                &folders,
                &RandomState::new(),
            );
            let mut args: Vec<_> = value(&all, "CNI_ARGS").split(';').collect();
            orders.insert(args.join(";"));
            args.sort_unstable();
            assert_eq!(args, ["IgnoreUnknown=1", "K8S_POD_NAME=p", "K8S_POD_NAMESPACE=n"]);
            assert_eq!(value(&all, "CNI_PATH"), "/a:/b");
        }
        // 200 draws of 6 orders miss one of them with a probability of 1e-15.
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn a_late_del_has_an_empty_netns() {
        let late = attachment().without_netns();
        let all = environment(Verb::Del, About::Attached(&late, None), &[], &RandomState::new());
        assert_eq!(value(&all, "CNI_NETNS"), "");
        assert_eq!(value(&all, "CNI_COMMAND"), "DEL");
    }

    #[test]
    fn plugins_get_only_declared_capabilities() {
        let list = Conflist::parse(
            r#"{"name":"n","cniVersion":"1.0.0","plugins":[
                {"type":"a","own":1},
                {"type":"b","capabilities":{"portMappings":true}}]}"#,
        )
        .unwrap();
        let prev = json!({"ips": [{"address": "10.0.0.2/24"}]});
        let first = stdin(&list, &list.plugins[0], About::Attached(&attachment(), None));
        assert_eq!(first, json!({"type":"a","own":1,"name":"n","cniVersion":"1.0.0"}));
        let second = stdin(&list, &list.plugins[1], About::Attached(&attachment(), Some(&prev)));
        assert_eq!(second["runtimeConfig"], json!({"portMappings":[1]}));
        assert_eq!(second["prevResult"], prev);
        // containerd leaves the declaration in what the plugin reads.
        assert_eq!(second["capabilities"], json!({"portMappings":true}));
    }

    #[test]
    fn calls_about_the_network_name_no_container() {
        let list = Conflist::parse(r#"{"name":"n","cniVersion":"1.1.0","plugins":[{"type":"a"}]}"#);
        let list = list.unwrap();
        let all = environment(Verb::Status, About::Network, &[], &RandomState::new());
        assert_eq!(value(&all, "CNI_COMMAND"), "STATUS");
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            assert_eq!(value(&all, name), "");
        }
        let config = json!({"type": "a", "name": "n", "cniVersion": "1.1.0"});
        assert_eq!(stdin(&list, &list.plugins[0], About::Network), config);
        let gc = stdin(&list, &list.plugins[0], About::Valid(&[&attachment()]));
        let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
        assert_eq!(gc["cni.dev/valid-attachments"], valid);
        assert_eq!(gc["cni.dev/attachments"], valid);
    }
}
