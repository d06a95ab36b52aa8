//! Where the container runtime of this node looks for network configurations and plugins.
//!
//! ```text
//! what is set ─► what the runtime's own configuration says ─► where distributions have it ─► usual
//! ```

mod known;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::entry::PLUGIN;
use super::folder::Folder;
use super::resolve::{resolve, resolve_seen};
use super::toml::{Texts, texts};
use known::{CONTAINERD, CRIO, DISTRIBUTIONS, Distribution};

/// Where runtimes look unless they are told otherwise.
const USUAL_CONF: &str = "/etc/cni/net.d";
const USUAL_BIN: &str = "/opt/cni/bin";

/// What is set, and where the node's files are seen from here.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The node's root directory, `/` for an agent without a container.
    pub root: PathBuf,
    /// The folder of network configurations, as the runtime sees it.
    pub conf_dir: Option<PathBuf>,
    /// The folder of plugins, as the runtime sees it.
    pub bin_dir: Option<PathBuf>,
}

/// What was found: paths as they are seen from here, links in them not followed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node's root directory.
    pub root: PathBuf,
    /// The folder of network configurations.
    pub conf_dir: PathBuf,
    /// The folders of plugins, in the order of the runtime's search.
    pub bin_dirs: Vec<PathBuf>,
    /// Who said so, for the log.
    pub conf_said: String,
    /// Who said so of the plugins.
    pub bin_said: String,
}

impl Found {
    /// The folder of network configurations.
    #[must_use]
    pub fn conf(&self) -> Folder {
        Folder::new(&self.root, &self.conf_dir)
    }

    /// The folders of plugins, as links lead now.
    #[must_use]
    pub fn programs(&self) -> Vec<PathBuf> {
        let resolved =
            |dir: &PathBuf| resolve_seen(&self.root, dir).unwrap_or_else(|_| dir.clone());
        self.bin_dirs.iter().map(resolved).collect()
    }

    /// The folder that has our plugin's program, or else the first.
    #[must_use]
    pub fn program_dir(&self) -> PathBuf {
        let dirs = self.programs();
        let has = dirs.iter().find(|dir| dir.join(PLUGIN).symlink_metadata().is_ok());
        let dir = has.or(dirs.first());
        dir.expect("there is at least the usual place").clone()
    }

    /// Whether the runtime would find our plugin's program.
    #[must_use]
    pub fn has_program(&self) -> bool {
        let is_program = |dir: PathBuf| {
            let path = resolve_seen(&self.root, &dir.join(PLUGIN));
            let found = path.and_then(std::fs::metadata);
            found.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
        };
        self.programs().into_iter().any(is_program)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bins: Vec<_> = self.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        write!(
            f,
            "network configurations in {} ({}), plugins in {} ({})",
            self.conf_dir.display(),
            self.conf_said,
            bins.join(", "),
            self.bin_said
        )
    }
}

/// What one source says; what it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    conf_dir: Option<PathBuf>,
    bin_dirs: Vec<PathBuf>,
}

/// Looks. Never fails: where nothing is found, the usual places are meant.
#[must_use]
pub fn find(wishes: &Wishes) -> Found {
    let mut sources = vec![(
        "as set".to_owned(),
        Said {
            conf_dir: wishes.conf_dir.clone(),
            bin_dirs: wishes.bin_dir.clone().into_iter().collect(),
        },
    )];
    sources.extend(of_the_node(&wishes.root));
    let usual = Said { conf_dir: Some(USUAL_CONF.into()), bin_dirs: vec![USUAL_BIN.into()] };
    sources.push(("as usual".to_owned(), usual));
    let here = |path: &Path| seen_from(&wishes.root, path);
    let conf = sources.iter().find_map(|(who, said)| Some((who, said.conf_dir.as_deref()?)));
    let bins = sources.iter().find(|(_, said)| !said.bin_dirs.is_empty());
    let (conf_said, conf_dir) = conf.expect("the usual place is the last source");
    let (bin_said, bins) = bins.expect("the usual place is the last source");
    Found {
        root: wishes.root.clone(),
        conf_dir: here(conf_dir),
        bin_dirs: bins.bin_dirs.iter().map(|dir| here(dir)).collect(),
        conf_said: conf_said.clone(),
        bin_said: bin_said.clone(),
    }
}

/// The first distribution that is there, then what the runtimes' own configurations say; of
/// those that have one, those come first whose socket is there.
fn of_the_node(root: &Path) -> Vec<(String, Said)> {
    let mut sources = Vec::new();
    let is_there = |path: &&str| leads_to(root, Path::new(path)).exists();
    for distribution in DISTRIBUTIONS.iter().filter(|it| is_there(&it.sign)) {
        sources.extend(configured(root, distribution));
        sources.push((distribution.name.to_owned(), distribution.said()));
    }
    let (mut live, idle): (Vec<_>, Vec<_>) =
        [&CRIO, &CONTAINERD].into_iter().partition(|runtime| is_there(&runtime.sign));
    live.extend(idle);
    sources.extend(live.into_iter().filter_map(|runtime| configured(root, runtime)));
    sources
}

fn configured(root: &Path, distribution: &Distribution) -> Option<(String, Said)> {
    let mut said = Said::default();
    let mut told = Vec::new();
    for file in files(root, distribution) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let one = read(&texts(&text));
        if one != Said::default() {
            told.push(file.display().to_string());
        }
        // Later files overrule earlier ones.
        said.conf_dir = one.conf_dir.or(said.conf_dir);
        said.bin_dirs = if one.bin_dirs.is_empty() { said.bin_dirs } else { one.bin_dirs };
    }
    (!told.is_empty()).then(|| (told.join(", "), said))
}

/// The file, then those of its folder in order.
fn files(root: &Path, distribution: &Distribution) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        distribution.files.iter().map(|file| leads_to(root, Path::new(file))).collect();
    let folder = distribution.folder.map(|folder| leads_to(root, Path::new(folder)));
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let mut parts: Vec<_> =
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    parts.sort();
    let followed = |part: PathBuf| resolve_seen(root, &part).unwrap_or(part);
    files.extend(parts.into_iter().map(followed));
    files
}

/// What one file says, in any of the versions of these files.
fn read(texts: &Texts) -> Said {
    let cri = |version: &[&str], key: &str| {
        let path = [&["plugins"], version, &["cni", key]].concat();
        path.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let versions: [&[&str]; 3] =
        [&["io.containerd.cri.v1.runtime"], &["io.containerd.grpc.v1.cri"], &["cri"]];
    let crio = |key: &str| vec!["crio".to_owned(), "network".to_owned(), key.to_owned()];
    let confs = versions.iter().map(|version| cri(version, "conf_dir"));
    let confs = confs.chain([crio("network_dir")]);
    let bins = versions.iter().flat_map(|it| [cri(it, "bin_dirs"), cri(it, "bin_dir")]);
    let bins = bins.chain([crio("plugin_dirs"), crio("plugin_dir")]);
    let folders = |key: Vec<String>| {
        let values = texts.get(&key).into_iter().flatten();
        let folders: Vec<_> = values.map(PathBuf::from).filter(|path| is_plain(path)).collect();
        (!folders.is_empty()).then_some(folders)
    };
    Said {
        conf_dir: confs.filter_map(folders).flatten().next(),
        bin_dirs: bins.filter_map(folders).next().unwrap_or_default(),
    }
}

/// Absolute, and without variables, which some distributions leave to their start script.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && !path.to_string_lossy().contains('$')
}

/// Where a path of the node leads, as it is seen from here.
#[must_use]
pub fn leads_to(root: &Path, path: &Path) -> PathBuf {
    resolve(root, path).unwrap_or_else(|_| seen_from(root, path))
}

/// A path of the node as it is seen below `root`.
#[must_use]
pub fn seen_from(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests;
