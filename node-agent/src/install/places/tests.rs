use super::*;

/// A node's root directory with these files; the text of a folder is empty.
struct Node(tempfile::TempDir);

impl Node {
    fn with(files: &[(&str, &str)]) -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let file = node.path(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            if text.is_empty() {
                std::fs::create_dir_all(file).unwrap();
            } else {
                std::fs::write(file, text).unwrap();
            }
        }
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// What is found, as the node sees it.
    fn find(&self) -> (String, String) {
        self.find_with(None, None)
    }

    fn find_with(&self, conf_dir: Option<&str>, bin_dir: Option<&str>) -> (String, String) {
        let path = |path: &str| PathBuf::from(path);
        let (conf_dir, bin_dir) = (conf_dir.map(path), bin_dir.map(path));
        let found = find(&Wishes { root: self.0.path().to_owned(), conf_dir, bin_dir });
        let shown =
            |path: &PathBuf| format!("/{}", path.strip_prefix(self.0.path()).unwrap().display());
        let bins: Vec<_> = found.bin_dirs.iter().map(shown).collect();
        (shown(&found.conf_dir), bins.join(" "))
    }
}

fn expect(node: &Node, conf: &str, bins: &str) {
    assert_eq!(node.find(), (conf.to_owned(), bins.to_owned()));
}

const CONTAINERD_2: &str = r#"
version = 2
root = "/var/lib/containerd"
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause:3.9" # conf_dir = "/wrong"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/x/bin"
      conf_dir = "/x/net.d"
      max_conf_num = 1
"#;

#[test]
fn the_usual_places_are_meant_where_nothing_is_found() {
    expect(&Node::with(&[]), "/etc/cni/net.d", "/opt/cni/bin");
}

#[test]
fn containerds_configuration_is_read_in_all_its_versions() {
    let one = "[plugins.cri.cni]\nconf_dir = \"/x/net.d\"\nbin_dir = \"/x/bin\"\n";
    let three = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  \
                 bin_dirs = ['/x/bin', '/y/bin']\n  conf_dir = '/x/net.d'\n";
    let file = "/etc/containerd/config.toml";
    expect(&Node::with(&[(file, one)]), "/x/net.d", "/x/bin");
    expect(&Node::with(&[(file, CONTAINERD_2)]), "/x/net.d", "/x/bin");
    expect(&Node::with(&[(file, three)]), "/x/net.d", "/x/bin /y/bin");
}

#[test]
fn crios_later_files_overrule_its_earlier_ones() {
    let node = Node::with(&[
        (
            "/etc/crio/crio.conf",
            "[crio.network]\nnetwork_dir = \"/a/net.d/\"\nplugin_dirs = [\n\t\"/a/bin\",\n\t\"/b/bin\",\n]\n",
        ),
        ("/etc/crio/crio.conf.d/10-a.conf", "[crio]\n[crio.network]\nnetwork_dir='/c/net.d'\n"),
        ("/etc/crio/crio.conf.d/01-b.conf", "[crio.network]\nnetwork_dir='/d/net.d'\n"),
    ]);
    expect(&node, "/c/net.d", "/a/bin /b/bin");
}

#[test]
fn of_two_runtimes_the_one_counts_that_runs() {
    let crio = ("/etc/crio/crio.conf", "[crio.network]\nnetwork_dir='/crio'\n");
    let containerd = ("/etc/containerd/config.toml", CONTAINERD_2);
    let socket = ("/run/containerd/containerd.sock", "x");
    expect(&Node::with(&[crio, containerd]), "/crio", "/x/bin");
    expect(&Node::with(&[crio, containerd, socket]), "/x/net.d", "/x/bin");
}

#[test]
fn distributions_have_places_of_their_own() {
    let cases = [
        (
            vec![("/var/lib/rancher/k3s/agent", "")],
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
            "/var/lib/rancher/k3s/data/cni",
        ),
        (
            vec![("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", CONTAINERD_2)],
            "/x/net.d",
            "/x/bin",
        ),
        (
            vec![(
                "/var/snap/microk8s/current/args/containerd.toml",
                "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"${SNAP_DATA}/bin\"\n",
            )],
            "/var/snap/microk8s/current/args/cni-network",
            "/var/snap/microk8s/current/opt/cni/bin",
        ),
        (vec![("/home/kubernetes/bin", "")], "/etc/cni/net.d", "/home/kubernetes/bin"),
        (vec![("/etc/kubernetes/cni/net.d", "")], "/etc/kubernetes/cni/net.d", "/var/lib/cni/bin"),
        (vec![("/var/lib/rancher/rke2/agent", "")], "/etc/cni/net.d", "/opt/cni/bin"),
    ];
    for (files, conf, bins) in cases {
        expect(&Node::with(&files), conf, bins);
    }
}

#[test]
fn what_is_set_counts_for_each_place_alone() {
    let node = Node::with(&[("/etc/containerd/config.toml", CONTAINERD_2)]);
    let found = |conf: &str, bins: &str| (conf.to_owned(), bins.to_owned());
    assert_eq!(node.find_with(Some("/set"), None), found("/set", "/x/bin"));
    assert_eq!(node.find_with(None, Some("/set")), found("/x/net.d", "/set"));
}

#[test]
fn a_configuration_that_is_broken_or_says_nothing_is_passed_over() {
    for text in ["version = 2\n", "[plugins.cri.cni]\nconf_dir = \"net.d\"\n", "[[[\u{0}", "= ="] {
        let node = Node::with(&[("/etc/containerd/config.toml", text)]);
        expect(&node, "/etc/cni/net.d", "/opt/cni/bin");
    }
}

#[test]
fn the_log_says_who_said_so() {
    let node = Node::with(&[("/etc/containerd/config.toml", CONTAINERD_2)]);
    let root = node.0.path().to_owned();
    let found = find(&Wishes { root, conf_dir: Some("/set".into()), bin_dir: None });
    let text = found.to_string();
    assert!(text.contains("(as set)") && text.contains("containerd/config.toml)"), "{text}");
}
