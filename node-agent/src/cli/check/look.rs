//! Looks at the node on which this runs. Changes nothing; rules are tried in a namespace made
//! for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netns::Fence;
use nix::unistd::{AccessFlags, access};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::facts::{CiliumSettings, Known, NodeFacts};
use crate::install::{Found, FoundPlaces, List, PLUGIN, Shape};
use crate::rules::{Programs, Rules, contract_options};

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than any page that is asked for.
const LONGEST_PAGE: u64 = 1 << 16;
/// Where kube-proxy tells its mode, unless it was told another place.
const KUBE_PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// Where the node's things are.
#[derive(Clone, Debug)]
pub struct NodePlaces {
    /// The node's name.
    pub name: String,
    /// Programs that work on rules, or which one is missing.
    pub programs: Known<Programs>,
    /// The node's `/proc`.
    pub processes: PathBuf,
    /// The runtime's folders.
    pub places: FoundPlaces,
    /// Where the agent answers.
    pub admin: SocketAddr,
}

/// Looks.
pub(super) async fn node(places: &NodePlaces) -> NodeFacts {
    let conf_dir = &places.places.conf_dir;
    let (rules, agent, proxy) =
        tokio::join!(rules(places), page(places.admin, "/readyz"), page(KUBE_PROXY, "/proxyMode"));
    let writable = access(conf_dir, AccessFlags::W_OK | AccessFlags::X_OK);
    NodeFacts {
        name: places.name.clone(),
        rules,
        conf_dir: conf_dir.display().to_string(),
        conf_writable: writable.map_err(|error| error.desc().to_owned()),
        conf: conf(&places.places),
        program: program(&places.places.programs()),
        agent,
        proxy_mode: proxy.and_then(|(status, page)| match status {
            200 => Ok(page.trim().to_owned()),
            status => Err(format!("kube-proxy answered {status}")),
        }),
        cilium: cilium(&places.processes),
    }
}

/// Whether a pod's rules could be written. The outer error: nobody tried.
async fn rules(places: &NodePlaces) -> Known<Result<(), String>> {
    let programs = match &places.programs {
        Ok(programs) => programs.clone(),
        Err(missing) => return Ok(Err(missing.clone())),
    };
    if !nix::unistd::geteuid().is_root() {
        return Err("only root may try a pod's rules".into());
    }
    let fence = Fence::new(1).map_err(|error| format!("enter network namespaces: {error}"))?;
    let rules = Rules::new(programs, fence, Handle::current());
    let tried = rules.self_test(&contract_options()).await;
    Ok(tried.map_err(|error| error.to_string()))
}

/// The first file that a runtime can use, and its plugins.
fn conf(places: &FoundPlaces) -> Known<Option<(String, Vec<String>)>> {
    let view = places.conf().read().map_err(|error| error.to_string())?;
    Ok(view.files.iter().find_map(|(name, found)| {
        let Found::Text(text) = found else { return None };
        let list = List::parse(Shape::of(name)?, text).ok()?;
        Some((name.clone(), list.kinds().map(str::to_owned).collect()))
    }))
}

fn program(folders: &[PathBuf]) -> Known<String> {
    let runs = |path: &PathBuf| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    let path = folders.iter().map(|folder| folder.join(PLUGIN)).find(runs);
    let shown = || folders.iter().map(|it| it.display().to_string()).collect::<Vec<_>>().join(", ");
    path.map(|path| path.display().to_string())
        .ok_or_else(|| format!("plugin {PLUGIN} is not in {}, or cannot be executed", shown()))
}

/// Status and text of a page.
async fn page(at: SocketAddr, path: &str) -> Known<(u16, String)> {
    let fetch = async {
        let mut stream = TcpStream::connect(at).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_PAGE).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, fetch).await;
    let answer = answer.map_err(|_| format!("{at} did not answer within {PATIENCE:?}"))?;
    let answer = answer.map_err(|error| format!("ask {at}: {error}"))?;
    let status = answer.split_whitespace().nth(1).and_then(|it| it.parse().ok());
    let status = status.ok_or_else(|| format!("{at} does not speak HTTP"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// What the cilium-agent of this node was told, by its command line and its folder of settings.
/// Only processes in the node's own network count: others are other nodes' on one machine.
fn cilium(processes: &Path) -> Known<Option<CiliumSettings>> {
    let network = |folder: &Path| {
        std::fs::metadata(folder.join("ns/net")).map(|found| (found.dev(), found.ino())).ok()
    };
    let own = network(Path::new("/proc/self"));
    let entries = std::fs::read_dir(processes)
        .map_err(|error| format!("look through {}: {error}", processes.display()))?;
    let mut hidden = false;
    for folder in entries.flatten().map(|entry| entry.path()) {
        let Ok(line) = std::fs::read(folder.join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line);
        let arguments: Vec<&str> = line.split('\0').filter(|it| !it.is_empty()).collect();
        if !is_cilium_agent(&arguments) {
            continue;
        }
        match network(&folder) {
            Some(theirs) if Some(theirs) == own => return Ok(Some(told(&folder, &arguments))),
            Some(_) => {}
            None => hidden = true,
        }
    }
    if hidden {
        return Err("a cilium-agent runs, but may not be looked at (SYS_PTRACE)".into());
    }
    Ok(None)
}

/// By its name, or by flags that nobody else has.
pub(super) fn is_cilium_agent(arguments: &[&str]) -> bool {
    let Some((program, flags)) = arguments.split_first() else { return false };
    let named = Path::new(program).file_name().is_some_and(|name| name == "cilium-agent");
    let flag = |flag: &&str| {
        let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
        flag.starts_with('-')
            && matches!(name, "write-cni-conf-when-ready" | "bpf-lb-sock-hostns-only")
    };
    named || flags.iter().any(flag)
}

/// Flags count more than files.
fn told(folder: &Path, arguments: &[&str]) -> CiliumSettings {
    let process = folder.file_name().unwrap_or_default().to_string_lossy();
    let from = format!("the command line of cilium-agent, process {process}");
    let flags = flags(arguments);
    let mut settings = CiliumSettings { from, ..CiliumSettings::default() };
    let root = folder.join("root");
    let files = flags.get("config-dir").map(|dir| root.join(dir.trim_start_matches('/')));
    for file in files.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten() {
        if let Ok(value) = std::fs::read_to_string(file.path()) {
            let name = file.file_name().to_string_lossy().into_owned();
            settings.values.insert(name, value.trim().to_owned());
        }
    }
    settings.values.extend(flags);
    settings
}

/// `--name=value`, `--name value`, or `--name`, which switches on.
pub(super) fn flags(arguments: &[&str]) -> std::collections::BTreeMap<String, String> {
    let mut flags = std::collections::BTreeMap::new();
    let mut rest = arguments.iter().skip(1).peekable();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--") else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value),
            None => match rest.next_if(|next| !next.starts_with('-')) {
                Some(value) => (flag, *value),
                None => (flag, "true"),
            },
        };
        flags.insert(name.to_owned(), value.to_owned());
    }
    flags
}
