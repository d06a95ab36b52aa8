//! The tables: who may use what, and where. Whoever changes the house changes it here.

/// Crates that count as one thing in [`TABLE`].
#[derive(Debug)]
pub struct Column {
    /// What messages call it.
    pub name: &'static str,
    /// The packages that are it.
    pub packages: &'static [&'static str],
}

/// The columns. A package that stands in one of them may be used only by rows that say so.
pub const COLUMNS: &[Column] = &[
    Column { name: "capture", packages: &["capture"] },
    Column { name: "netns", packages: &["netns"] },
    Column { name: "zds", packages: &["zds"] },
    Column { name: "plugin-api", packages: &["plugin-api"] },
    Column { name: "mesh", packages: &["mesh"] },
    Column { name: "control", packages: &["control"] },
    Column { name: "lab", packages: &["lab"] },
    Column {
        name: "a program",
        packages: &["cni-plugin", "node-agent", "ztunnel", "conformance", "bench"],
    },
    Column { name: "kube-rs", packages: &["kube", "kube-client", "kube-core", "k8s-openapi"] },
    Column { name: "tokio", packages: &["tokio"] },
    Column { name: "tonic", packages: &["tonic", "tonic-prost"] },
];

/// What one package may use of [`COLUMNS`], by normal dependencies. Tests and build
/// scripts are free. What comes through another package of ours is that one's business;
/// what comes through a foreign crate counts as used.
#[derive(Debug)]
pub struct Row {
    /// The package.
    pub package: &'static str,
    /// Its folder.
    pub folder: &'static str,
    /// The columns it may use.
    pub may: &'static [May],
    /// Where the package must stay small: nothing else at all may be a direct dependency.
    pub only: Option<&'static [&'static str]>,
}

/// One cell that is not empty.
#[derive(Debug)]
pub enum May {
    /// Anywhere in the package.
    Everywhere(&'static str),
    /// In these rooms only, as paths below the package's folder.
    In(&'static str, &'static [&'static str]),
}

use May::{Everywhere, In};

const fn row(package: &'static str, folder: &'static str, may: &'static [May]) -> Row {
    Row { package, folder, may, only: None }
}

/// The walls between packages.
pub const TABLE: &[Row] = &[
    Row {
        package: "cni-plugin",
        folder: "cni-plugin/",
        may: &[Everywhere("plugin-api")],
        // It is executed for every pod: small, blocking, nothing that starts slowly.
        only: Some(&["plugin-api", "serde", "serde_json", "nix", "thiserror"]),
    },
    row(
        "node-agent",
        "node-agent/",
        &[
            Everywhere("capture"),
            Everywhere("netns"),
            Everywhere("zds"),
            Everywhere("plugin-api"),
            In("kube-rs", &["src/kube/", "src/kube.rs"]),
            Everywhere("tokio"),
            // The container runtime speaks gRPC, and is asked where pods are.
            In("tonic", &["src/pod_netns/"]),
        ],
    ),
    row(
        "ztunnel",
        "ztunnel/",
        &[
            Everywhere("netns"),
            Everywhere("zds"),
            Everywhere("mesh"),
            Everywhere("tokio"),
            In("tonic", &["src/source/", "src/source.rs", "src/identity/", "src/identity.rs"]),
        ],
    ),
    row(
        "control",
        "crates/control/",
        &[
            Everywhere("mesh"),
            In("kube-rs", &["src/kube/", "src/kube.rs"]),
            Everywhere("tokio"),
            Everywhere("tonic"),
        ],
    ),
    row(
        "lab",
        "crates/lab/",
        &[
            Everywhere("netns"),
            Everywhere("zds"),
            Everywhere("mesh"),
            Everywhere("control"),
            In("kube-rs", &["src/cluster/", "src/cluster.rs"]),
            Everywhere("tokio"),
        ],
    ),
    row("conformance", "conformance/", &[Everywhere("lab"), Everywhere("tokio")]),
    row(
        "bench",
        "bench/",
        &[
            Everywhere("lab"),
            Everywhere("netns"),
            Everywhere("zds"),
            Everywhere("plugin-api"),
            Everywhere("tokio"),
        ],
    ),
    row("zds", "crates/zds/", &[In("tokio", &["src/link.rs"])]),
    row("capture", "crates/capture/", &[]),
    row("netns", "crates/netns/", &[]),
    row("plugin-api", "crates/plugin-api/", &[]),
    row("mesh", "crates/mesh/", &[]),
    Row { package: "walls", folder: "scripts/walls/", may: &[], only: Some(&["serde_json"]) },
];

/// A name that only some places may say.
#[derive(Debug)]
pub struct Room {
    /// A crate (`h2`), a path (`Instant::now`) or any other identifier.
    pub name: Name,
    /// The folders and files, from the root, that may.
    pub places: &'static [&'static str],
    /// For the message.
    pub why: &'static str,
}

/// How a name is recognised in source.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// A crate at the root of a path. A module of ours of the same name is told apart
    /// when it is written as `crate::name`.
    Crate(&'static str),
    /// These identifiers, joined by `::`, anywhere.
    Path(&'static str),
}

use Name::{Crate, Path};

/// The walls between rooms that no dependency shows. [`In`] cells of [`TABLE`] add theirs.
pub const ROOMS: &[Room] = &[
    Room {
        name: Crate("h2"),
        places: &["ztunnel/src/hbone/", "ztunnel/src/hbone.rs"],
        why: "everything that knows HTTP/2 frames is in the tunnel transport",
    },
    Room {
        name: Crate("rtnetlink"),
        places: &["node-agent/src/rules/", "crates/lab/"],
        why: "links, routes and policy rules are written in one room",
    },
    Room {
        name: Crate("nftables"),
        places: &["crates/capture/", "node-agent/src/rules/", "crates/lab/"],
        why: "rules are data of capture, and run in one room",
    },
    Room {
        name: Crate("tokio_seqpacket"),
        places: &["crates/zds/src/link.rs"],
        why: "packets of ZDS are framed in one place",
    },
    Room {
        name: Path("setns"),
        places: &["crates/netns/"],
        why: "only the fence enters namespaces",
    },
    Room {
        name: Path("unshare"),
        places: &["crates/netns/"],
        why: "only the fence makes namespaces",
    },
];

/// Rooms that decide: facts in, decisions out, so that a table can test them.
pub const PURE: &[&str] = &[
    "crates/capture/src/",
    "crates/mesh/src/",
    "crates/plugin-api/src/",
    "crates/control/src/translate/",
    "crates/control/src/translate.rs",
    "cni-plugin/src/cni_args.rs",
    "cni-plugin/src/config.rs",
    "cni-plugin/src/invocation.rs",
    "cni-plugin/src/prev_result.rs",
    "node-agent/src/enrollment.rs",
    "node-agent/src/enrollment/",
    "node-agent/src/pod_netns/runtime/info.rs",
    "node-agent/src/reconcile/plan.rs",
    "node-agent/src/reconcile/plan/",
    "node-agent/src/reconcile/table.rs",
    "node-agent/src/reconcile/table/",
    "node-agent/src/ztunnel_link/session.rs",
    "node-agent/src/ztunnel_link/session/",
    "ztunnel/src/route.rs",
    "ztunnel/src/route/",
];

/// What a pure room never says: clocks, sockets, files, processes, the environment.
pub const EFFECTS: &[Name] = &[
    Crate("tokio"),
    Crate("tonic"),
    Crate("hyper"),
    Crate("kube"),
    Crate("k8s_openapi"),
    Crate("nix"),
    Crate("socket2"),
    Path("Fence"),
    Path("listen_tcp"),
    Path("dial_socket"),
    Path("Instant::now"),
    Path("SystemTime::now"),
    Path("TcpStream"),
    Path("TcpListener"),
    Path("UdpSocket"),
    Path("UnixStream"),
    Path("UnixListener"),
    Path("std::env"),
    Path("std::fs"),
    Path("std::process"),
    Path("std::thread"),
];

/// A breach that we chose.
#[derive(Debug)]
pub struct Exception {
    /// Folder or file, from the root.
    pub place: &'static str,
    /// The crate or path as [`Name`] has it.
    pub name: &'static str,
    /// Why it stays.
    #[expect(dead_code, reason = "for whoever reads the table")]
    pub reason: &'static str,
}

/// All deliberate exceptions, each with its reason.
pub const EXCEPTIONS: &[Exception] = &[];

/// Crates that must not be built at all, on the machine's own platform.
pub const BANNED: &[(&str, &str)] = &[
    ("ring", "aws-lc-rs is the one provider of cryptography"),
    ("openssl", "aws-lc-rs is the one provider of cryptography"),
    ("openssl-sys", "aws-lc-rs is the one provider of cryptography"),
    ("native-tls", "rustls is the one TLS library"),
    ("serde_yaml", "no longer maintained; serde_yaml_ng is in use"),
];

/// Longest file, in lines that are not tests.
pub const LONGEST_FILE: usize = 400;

/// Words that announce unfinished work. Written in two parts so as not to find itself.
pub const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// Folders that hold nothing people write.
pub const FOREIGN_FOLDERS: &[&str] = &[".git", "target"];
