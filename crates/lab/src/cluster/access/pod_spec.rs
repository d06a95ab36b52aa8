//! Pods as the suite describes them, and as the API wants them. PURE.

use serde_json::{Map, Value, json};

/// A pod with one container, and perhaps one that runs before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The only node it may run on; any that the scheduler likes without it.
    pub node: Option<String>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// Its service account; the namespace's default without it.
    pub service_account: Option<String>,
    /// The container that runs first and must succeed.
    pub init: Option<ContainerSpec>,
    /// The container.
    pub main: ContainerSpec,
    /// What happens when it ends.
    pub restart: Restart,
    /// Whether it lives in the node's own network.
    pub network: Network,
    /// What else of the node it reaches.
    pub reach: Reach,
}

/// What of a node a pod reaches beside its network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    #[default]
    Nothing,
    /// All its processes, and all its files at `/host`.
    Node,
}

/// Whose network a pod lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Its own.
    #[default]
    Pod,
    /// The node's. Such a pod also runs on nodes that are closed to others.
    Node,
}

/// What happens to a container that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// It is started again.
    #[default]
    Always,
    /// That was it.
    Never,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its image, which is pulled only where it is absent.
    pub image: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Ports that it declares.
    pub ports: Vec<Port>,
    /// What the kubelet asks it.
    pub probes: Probes,
    /// Capabilities beyond those that it keeps.
    pub capabilities: Vec<&'static str>,
    /// What becomes of those that the runtime gives to every container.
    pub usual: Usual,
}

/// The capabilities that a runtime gives to every container, `NET_RAW` among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usual {
    /// They are taken away.
    #[default]
    Dropped,
    /// They stay.
    Kept,
}

/// A declared port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// In the pod.
    pub number: u16,
    /// The same on the node's addresses, if any.
    pub host: Option<u16>,
}

/// Probes, each the handler part of the API's object, as `{"tcpSocket": {"port": 80}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whether it has started.
    pub startup: Option<Value>,
    /// Whether it may be talked to.
    pub readiness: Option<Value>,
    /// Whether it lives.
    pub liveness: Option<Value>,
}

impl PodSpec {
    /// A pod that runs `command` of `image`.
    #[must_use]
    pub fn new(namespace: &str, name: &str, image: &str, command: &[&str]) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: None,
            labels: vec![("app".to_owned(), name.to_owned())],
            annotations: Vec::new(),
            service_account: None,
            init: None,
            main: ContainerSpec::new(image, command),
            restart: Restart::Always,
            network: Network::Pod,
            reach: Reach::Nothing,
        }
    }

    /// The same on this node only.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same as this service account.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        self.service_account = Some(name.to_owned());
        self
    }

    /// What the API is given.
    #[must_use]
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "labels": map(&self.labels),
                "annotations": map(&self.annotations),
            },
            "spec": self.spec(),
        })
    }

    /// Its `spec`, for templates of Jobs and the like.
    #[must_use]
    pub fn spec(&self) -> Value {
        let mut spec = json!({
            "containers": [self.main.object("app")],
            "restartPolicy": match self.restart {
                Restart::Always => "Always",
                Restart::Never => "Never",
            },
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
        });
        let also = [
            self.init.as_ref().map(|init| ("initContainers", json!([init.object("first")]))),
            self.service_account.as_ref().map(|name| ("serviceAccountName", json!(name))),
            self.node.as_ref().map(|name| ("affinity", only_on(name))),
        ];
        for (key, value) in also.into_iter().flatten() {
            spec[key] = value;
        }
        if self.network == Network::Node {
            spec["hostNetwork"] = json!(true);
            spec["tolerations"] = json!([{"operator": "Exists"}]);
        }
        if self.reach == Reach::Node {
            spec["hostPID"] = json!(true);
            spec["volumes"] = json!([{"name": "host", "hostPath": {"path": "/"}}]);
            // What is mounted on the node later appears here too.
            let mount = json!({"name": "host", "mountPath": "/host",
                "mountPropagation": "HostToContainer"});
            spec["containers"][0]["volumeMounts"] = json!([mount]);
        }
        spec
    }

    /// What a template of a controller is given: labels, annotations and `spec`.
    #[must_use]
    pub fn template(&self) -> Value {
        json!({
            "metadata": {"labels": map(&self.labels), "annotations": map(&self.annotations)},
            "spec": self.spec(),
        })
    }
}

impl ContainerSpec {
    /// A container that runs `command` of `image`, without ports, probes or capabilities.
    #[must_use]
    pub fn new(image: &str, command: &[&str]) -> Self {
        Self {
            image: image.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            ..Self::default()
        }
    }

    fn object(&self, name: &str) -> Value {
        let ports = self.ports.iter().map(|port| {
            let mut object = json!({"containerPort": port.number});
            if let Some(host) = port.host {
                object["hostPort"] = json!(host);
            }
            object
        });
        let mut object = json!({
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": self.command,
            "ports": ports.collect::<Vec<_>>(),
            "securityContext": {"capabilities": {"add": self.capabilities}},
        });
        if self.usual == Usual::Dropped {
            object["securityContext"]["capabilities"]["drop"] = json!(["ALL"]);
        }
        let probes = [
            ("startupProbe", &self.probes.startup),
            ("readinessProbe", &self.probes.readiness),
            ("livenessProbe", &self.probes.liveness),
        ];
        for (key, probe) in probes {
            if let Some(probe) = probe {
                object[key] = often(probe);
            }
        }
        object
    }
}

/// A probe that is made every second: what is observed is how it ends, not its pace. A slow
/// machine gets time for each.
fn often(handler: &Value) -> Value {
    let mut probe = handler.clone();
    probe["periodSeconds"] = json!(1);
    probe["timeoutSeconds"] = json!(5);
    probe["failureThreshold"] = json!(10);
    probe
}

/// By the node's name rather than a label that an administrator may have changed.
fn only_on(node: &str) -> Value {
    let is_it = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let terms = json!({"nodeSelectorTerms": [{"matchFields": [is_it]}]});
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

fn map(pairs: &[(String, String)]) -> Map<String, Value> {
    pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_what_it_needs_and_no_more() {
        let mut spec = PodSpec::new("ns", "client", "image:1", &["app", "serve"])
            .on("node1")
            .label("istio.io/dataplane-mode", "ambient")
            .account("client");
        spec.main.ports.push(Port { number: 8080, host: Some(18080) });
        spec.main.probes.readiness = Some(json!({"tcpSocket": {"port": 8080}}));
        let object = spec.object();
        let label = &object["metadata"]["labels"]["istio.io/dataplane-mode"];
        assert_eq!(label, "ambient");
        let pod = &object["spec"];
        assert_eq!(pod["serviceAccountName"], "client");
        assert_eq!(pod["hostNetwork"], Value::Null);
        let term = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"][0]["matchFields"][0];
        assert_eq!(term["values"], json!(["node1"]));
        let container = &pod["containers"][0];
        assert_eq!(container["ports"], json!([{"containerPort": 8080, "hostPort": 18080}]));
        assert_eq!(container["readinessProbe"]["tcpSocket"]["port"], 8080);
        assert_eq!(container["readinessProbe"]["periodSeconds"], 1);
        assert_eq!(container["livenessProbe"], Value::Null);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    }

    #[test]
    fn only_who_asks_for_it_reaches_the_node() {
        let mut spec = PodSpec::new("ns", "hand", "image:1", &["app", "serve"]);
        assert!(spec.spec()["hostPID"].is_null() && spec.spec()["volumes"].is_null());
        spec.reach = Reach::Node;
        let pod = spec.spec();
        assert_eq!(pod["hostPID"], true);
        assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/");
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/host");
    }

    #[test]
    fn an_observer_lives_in_the_nodes_network_on_any_node() {
        let mut spec = PodSpec::new("ns", "observer", "image:1", &["app", "idle"]);
        spec.network = Network::Node;
        spec.main.capabilities = vec!["NET_RAW"];
        let pod = spec.spec();
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
        assert_eq!(capabilities["add"], json!(["NET_RAW"]));
        spec.main.usual = Usual::Kept;
        assert_eq!(
            spec.spec()["containers"][0]["securityContext"]["capabilities"]["drop"],
            json!(null)
        );
    }
}
