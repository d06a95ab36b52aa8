//! The room at work in folders of this machine.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::places::Found;
use super::*;
use crate::testing::eventually;

mod rewritten;

const OWN: &str = "00-sluice.conflist";

fn calico(mtu: u32) -> String {
    format!(r#"{{"name":"pods","cniVersion":"1.0.0","plugins":[{{"type":"calico","mtu":{mtu}}}]}}"#)
}

/// A node's folders, and an installer at work there.
struct Node {
    root: tempfile::TempDir,
    settings: Settings,
    program: Option<PathBuf>,
    standing: Standing,
    news: Arc<Mutex<Vec<News>>>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Node {
    /// With the plugin's program in place.
    fn new(mode: Mode) -> Self {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join(PLUGIN), "x").unwrap();
        std::fs::set_permissions(bin.join(PLUGIN), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(root.path().join("net.d")).unwrap();
        let entry = Entry {
            agent_socket: "/run/a.sock".into(),
            exclude_namespaces: ["kube-system".to_owned()].into(),
            timeout_seconds: 5,
            when_agent_absent: WhenAgentAbsent::Closed,
            log_file: None,
            log_max_bytes: None,
        };
        let settings = Settings { mode, own: OWN.into(), entry };
        let (program, standing, news) = (None, Standing::default(), Arc::default());
        Self { root, settings, program, standing, news, running: None }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("net.d")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    fn start(&mut self) {
        self.start_in(self.folder());
    }

    fn start_in(&mut self, conf_dir: PathBuf) {
        let found = Found {
            root: "/".into(),
            conf_dir,
            bin_dirs: vec![self.root.path().join("bin")],
            conf_said: String::new(),
            bin_said: String::new(),
        };
        let news = Arc::clone(&self.news);
        let tell = move |it| news.lock().unwrap().push(it);
        let installer = Installer::new(found, self.settings.clone(), Metrics::default(), tell);
        let installer = installer
            .with_program(self.program.clone())
            .with_standing(self.standing.clone())
            .with_record(self.root.path().join("installed.json"));
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), tokio::spawn(installer.keep(stop))));
    }

    async fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        stop.cancel();
        running.await.unwrap();
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, || async { holds(self) }).await;
    }

    async fn until_chained(&self, mtu: u32) {
        let mtu = format!("\"mtu\":{mtu}}}");
        let what = format!("our list has {mtu}");
        self.until(&what, |node| node.text(OWN).contains(&mtu)).await;
    }

    fn told(&self, part: &str) -> bool {
        self.news.lock().unwrap().iter().any(|news| format!("{news:?}").contains(part))
    }
}

/// The list that a runtime would use now: it lists the folder and reads the first file.
fn chosen(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries
        .filter(|path| Shape::of(&path.file_name().unwrap().to_string_lossy()).is_some())
        .collect();
    paths.sort();
    std::fs::read_to_string(paths.first()?).ok()
}

#[tokio::test]
async fn our_list_is_made_followed_and_left_when_the_agent_ends() {
    let mut node = Node::new(Mode::Own);
    node.put("10-calico.conflist", &calico(1));
    node.start();
    node.until_chained(1).await;
    let mode = std::fs::metadata(node.file(OWN)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    node.put("10-calico.conflist", &calico(2));
    node.until_chained(2).await;
    node.stop().await;
    assert!(node.text(OWN).contains(PLUGIN), "a restart is no removal");
    node.put("10-calico.conflist", &calico(3));
    node.start();
    node.until_chained(3).await;
    let names: Vec<_> = std::fs::read_dir(node.folder()).unwrap().collect();
    assert_eq!(names.len(), 2, "nothing else is left: {names:?}");
    node.stop().await;
}

#[tokio::test]
async fn what_is_as_it_should_be_is_not_written() {
    let mut node = Node::new(Mode::Own);
    node.put("10-calico.conflist", &calico(1));
    node.start();
    node.until_chained(1).await;
    node.stop().await;
    let written = std::fs::metadata(node.file(OWN)).unwrap().modified().unwrap();
    node.start();
    node.put("10-calico.conflist", &calico(1));
    node.put("99-last.conflist", &calico(9));
    node.until("it was looked at", |node| node.told("99-last.conflist")).await;
    assert_eq!(std::fs::metadata(node.file(OWN)).unwrap().modified().unwrap(), written);
    node.stop().await;
}

#[tokio::test]
async fn a_folder_that_nobody_has_made_yet_is_made() {
    let mut node = Node::new(Mode::Own);
    std::fs::remove_dir(node.folder()).unwrap();
    node.start();
    node.until("pods wait", |node| node.text(OWN).contains("sluice-waits")).await;
    node.put("10-calico.conflist", &calico(1));
    node.until_chained(1).await;
    // Nobody can empty what the installer writes to: it is moved away as a whole.
    std::fs::rename(node.folder(), node.root.path().join("gone")).unwrap();
    node.until("it is made again", |node| node.text(OWN).contains(PLUGIN)).await;
    node.put("10-calico.conflist", &calico(2));
    node.until_chained(2).await;
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_written_before_the_program_is_there() {
    let mut node = Node::new(Mode::Own);
    let program = node.root.path().join("bin").join(PLUGIN);
    std::fs::remove_file(&program).unwrap();
    node.put("10-calico.conflist", &calico(1));
    node.start();
    node.until("it is told", |node| node.told("program is not in")).await;
    assert_eq!(chosen(&node.folder()), Some(calico(1)), "pods start as without us");
    std::fs::write(&program, "x").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    node.until_chained(1).await;
    node.stop().await;
}

#[tokio::test]
async fn the_program_comes_before_the_list_and_comes_back() {
    let mut node = Node::new(Mode::Own);
    let (source, program) =
        (node.root.path().join("source"), node.root.path().join("bin/sluice-cni"));
    std::fs::remove_dir_all(node.root.path().join("bin")).unwrap();
    let script = "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}'\n";
    std::fs::write(&source, script).unwrap();
    node.program = Some(source);
    node.put("10-calico.conflist", &calico(1));
    node.start();
    eventually("our list is there, with its program", || async {
        let named = node.text(OWN).contains(PLUGIN);
        assert!(!named || program.exists(), "no pod could start");
        named
    })
    .await;
    std::fs::write(&program, "somebody's").unwrap();
    let back = |_: &Node| std::fs::read_to_string(&program).unwrap_or_default() == script;
    node.until("the program is ours again", back).await;
    node.stop().await;
}

#[tokio::test]
async fn an_uninstall_leaves_the_folder_as_it_was() {
    let single = r#"{"name":"mynet","cniVersion":"0.3.1","type":"weave-net"}"#;
    for mode in [Mode::Own, Mode::Append] {
        let mut node = Node::new(mode);
        let files = [("00-a.conf", single.to_owned()), ("10-calico.conflist", calico(1))];
        files.iter().for_each(|(name, text)| node.put(name, text));
        node.start();
        let chained = |node: &Node| chosen(&node.folder()).is_some_and(|it| it.contains(PLUGIN));
        node.until("our plugin is in the list", chained).await;
        node.stop().await;
        let conf = Folder::new(Path::new("/"), &node.folder());
        let made = undo(&conf.read().unwrap(), OWN);
        assert!(made.troubles.is_empty() && !made.changes.is_empty(), "{mode:?}: {made:?}");
        for change in &made.changes {
            assert_eq!(conf.apply(change).unwrap(), Applied::Made);
        }
        let mut left: Vec<_> = std::fs::read_dir(node.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, files.each_ref().map(|(name, _)| *name), "{mode:?}");
        assert!(files.iter().all(|(name, text)| node.text(name) == *text), "{mode:?}");
    }
}

#[tokio::test]
async fn in_append_mode_mode_and_link_of_the_primarys_file_stay() {
    let mut node = Node::new(Mode::Append);
    let target = node.root.path().join("calico.conflist");
    std::fs::write(&target, calico(1)).unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).unwrap();
    symlink(&target, node.file("10-calico.conflist")).unwrap();
    node.start();
    node.until("our entry is there", |node| node.text("10-calico.conflist").contains(PLUGIN)).await;
    assert!(node.file("10-calico.conflist").is_symlink());
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o640);
    // Where a link leads is not noticed, but looked at.
    std::fs::write(&target, calico(2)).unwrap();
    let back = |node: &Node| {
        let text = node.text("10-calico.conflist");
        text.matches(PLUGIN).count() == 1 && text.contains("\"mtu\":2")
    };
    node.until("our entry is in what its owner wrote", back).await;
    node.stop().await;
}

#[tokio::test]
async fn who_waits_for_the_installation_is_told_once_it_stands() {
    let mut node = Node::new(Mode::Append);
    node.start();
    node.until("it waits for a primary", |node| node.told("no primary plugin")).await;
    assert!(!node.told("InPlace") && matches!(node.standing.seen(), Stands::Not(_)));
    node.put("10-calico.conflist", &calico(1));
    node.until("it is told", |node| node.told("InPlace")).await;
    assert!(node.text("10-calico.conflist").contains(PLUGIN));
    let excluded = ["kube-system", "calico-system", "calico-apiserver", "tigera-operator"];
    let excluded = excluded.into_iter().map(str::to_owned).collect();
    assert_eq!(node.standing.seen(), Stands::InPlace { excluded });
    node.stop().await;
}

#[tokio::test]
async fn the_old_place_is_cleared_once_the_new_one_serves() {
    let mut node = Node::new(Mode::Own);
    node.put("10-calico.conflist", &calico(1));
    node.start();
    node.until_chained(1).await;
    node.stop().await;
    let new = node.root.path().join("new.d");
    std::fs::create_dir(&new).unwrap();
    std::fs::write(new.join("10-calico.conflist"), calico(2)).unwrap();
    node.start_in(new.clone());
    node.until("the old place is cleared", |node| !node.file(OWN).exists()).await;
    assert!(new.join(OWN).exists());
    assert_eq!(node.text("10-calico.conflist"), calico(1), "which is as it was");
    let record = node.root.path().join("installed.json");
    eventually("it is forgotten", || async { Record::read(&record).conf == [new.clone()].into() })
        .await;
    node.stop().await;
}

#[tokio::test]
async fn odd_files_keep_nothing_from_the_primary() {
    let mut node = Node::new(Mode::Own);
    node.put("10-calico.conflist", &calico(1));
    std::fs::create_dir(node.file("20-folder.conf")).unwrap();
    symlink("/nonexistent", node.file("30-dangling.conf")).unwrap();
    nix::unistd::mkfifo(&node.file("40-pipe.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(node.file("50-bytes.conf"), [0xff, 0xfe]).unwrap();
    std::fs::write(node.file("60-long.conf"), " ".repeat(2 << 20)).unwrap();
    node.start();
    node.until_chained(1).await;
    node.until("each is named", |node| {
        ["30-dangling.conf", "40-pipe.conf", "50-bytes.conf", "60-long.conf"]
            .iter()
            .all(|name| node.told(name))
    })
    .await;
    assert!(!node.told("20-folder.conf"), "no runtime takes a folder for a file");
    node.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_keeps_what_it_has_and_is_told() {
    let mut node = Node::new(Mode::Own);
    node.put("10-calico.conflist", &calico(1));
    // Nobody can write there, not even root: a folder has the name of the new file.
    std::fs::create_dir(node.file(".00-sluice.conflist.sluice-new")).unwrap();
    node.start();
    node.until("it is told", |node| node.told("Trouble") && node.told("what was there stays"))
        .await;
    assert_eq!(chosen(&node.folder()), Some(calico(1)));
    std::fs::remove_dir(node.file(".00-sluice.conflist.sluice-new")).unwrap();
    node.until_chained(1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_removes_our_list_again_and_again_is_named() {
    let mut node = Node::new(Mode::Own);
    node.put("05-cilium.conflist", &calico(1));
    node.start();
    let backup = format!("{OWN}.cilium_bak");
    for _ in 0..6 {
        node.until_chained(1).await;
        std::fs::rename(node.file(OWN), node.file(&backup)).unwrap();
    }
    node.until("it is told", |node| {
        node.told("Contested") && node.told("Cilium") && node.told("cni.exclusive=false")
    })
    .await;
    node.until_chained(1).await;
    node.stop().await;
}
