//! The cluster's name server: CoreDNS, as every cluster has one.

use serde_json::{Value, json};

use super::plan::Plan;

const IMAGE: &str = "sluice.test/coredns:1";

/// What its own deployment guide asks for, small.
const COREFILE: &str = ".:53 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    reload
    loadbalance
}
";

/// All objects, as a list.
pub(super) fn objects(plan: Plan) -> Value {
    let labels = json!({"k8s-app": "kube-dns"});
    let about = |name: &str| json!({"name": name, "namespace": "kube-system", "labels": labels});
    let addresses = plan.name_server();
    let families = if addresses.len() == 2 { "RequireDualStack" } else { "SingleStack" };
    let ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
        .map(|(name, protocol)| json!({"name": name, "port": 53, "protocol": protocol}));
    let items = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about("coredns")}),
        role(),
        binding(),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": about("coredns"),
            "data": {"Corefile": COREFILE},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": about("kube-dns"),
            "spec": {
                "clusterIP": addresses[0],
                "clusterIPs": addresses,
                "ipFamilyPolicy": families,
                "selector": labels,
                "ports": ports,
            },
        }),
        deployment(&about("coredns"), &labels),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// What it has to see, as its own deployment guide has it.
fn role() -> Value {
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            rule("", &["endpoints", "services", "pods", "namespaces"]),
            rule("discovery.k8s.io", &["endpointslices"]),
        ],
    })
}

fn binding() -> Value {
    let role = json!({
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:coredns",
    });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
    })
}

fn deployment(about: &Value, labels: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": about,
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "coredns",
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-cluster-critical",
                    "containers": [{
                        "name": "coredns",
                        "image": IMAGE,
                        "imagePullPolicy": "Never",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}},
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Family;

    #[test]
    fn the_service_has_the_address_that_kubelets_tell_to_pods() {
        let list = objects(Plan { family: Family::V4 });
        let items = list["items"].as_array().unwrap();
        let service = items.iter().find(|item| item["kind"] == "Service").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(service["spec"]["ipFamilyPolicy"], "SingleStack");
    }
}
