//! Bringing a cluster up, step by step; what fails half-way is removed again.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use netns::Fence;
use nix::mount::{MsFlags, mount};

use super::control_plane::{self, Credentials, node_name};
use super::errors::UpError;
use super::machine::Machine;
use super::plan::{API_PORT, CONTROL_PLANE, Plan};
use super::record::{Record, Running};
use super::waiting::{settled, wait_for_api, wait_for_nodes};
use super::{Cluster, ClusterOptions, ExecError, PART, ROOT};
use super::{names, place, removal, wiring, worker};
use crate::place::Place;
use crate::process::{self, Job};
use crate::state::ProcessId;

/// A file system in memory for everything of one cluster: images, containers, disks.
const SIZE: &str = "size=12g,mode=755";
/// See [`Cluster::up`].
pub(super) async fn up(options: &ClusterOptions) -> Result<Cluster, UpError> {
    check(options)?;
    let folder = Path::new(ROOT).join(&options.name);
    make_folder(&folder, &options.name)?;
    let record = Record {
        name: options.name.clone(),
        primary: options.primary.to_string(),
        family: options.family,
        nodes: options.nodes,
        tools: options.tools.folder().to_owned(),
        machines: Vec::new(),
        relay: None,
    };
    let mut cluster = Cluster { folder: folder.clone(), record };
    match bring_up(&mut cluster, options).await {
        Ok(()) => Ok(cluster),
        Err(error) => {
            for left in removal::remove(&folder) {
                tracing::warn!(cluster = options.name, left, "stays behind");
            }
            Err(error)
        }
    }
}

fn check(options: &ClusterOptions) -> Result<(), UpError> {
    let ClusterOptions { name, nodes, .. } = options;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || name.len() > 20 || !name.chars().all(plain) {
        let told =
            format!("a cluster's name has 1 to 20 letters, digits and hyphens, not {name:?}");
        return Err(UpError::Options(told));
    }
    if !(1..=9).contains(nodes) {
        return Err(UpError::Options(format!("a cluster has 1 to 9 nodes, not {nodes}")));
    }
    Ok(())
}

fn make_folder(folder: &Path, name: &str) -> Result<(), UpError> {
    let disk = |step: &str| {
        let step = format!("{step} {}", folder.display());
        move |source| UpError::Disk { step, source }
    };
    fs::create_dir_all(ROOT).map_err(disk("make the folder of"))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(UpError::Exists(name.to_owned()));
        }
        made => made.map_err(disk("make"))?,
    }
    let mounted = mount(Some("sluice"), folder, Some("tmpfs"), MsFlags::empty(), Some(SIZE));
    mounted.map_err(io::Error::from).map_err(disk("mount memory at"))
}

async fn bring_up(cluster: &mut Cluster, options: &ClusterOptions) -> Result<(), UpError> {
    let plan = Plan { family: options.family };
    let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    addresses.extend(plan.control_plane().iter().map(|own| own.ip()));
    let services = plan.api_service().into_iter();
    addresses.extend(services.filter_map(|own| own.parse::<IpAddr>().ok()));
    let credentials = Credentials::generate(&addresses, options.nodes)?;
    let mut middle = Machine::new(CONTROL_PLANE, cluster.folder.join(CONTROL_PLANE));
    control_plane::furnish(&mut middle, plan, &options.tools, &credentials)?;
    let kubeconfig = credentials.kubeconfig("127.0.0.1", "admin");
    options.primary.furnish_middle(&mut middle, &kubeconfig, &options.tools)?;
    save(&middle)?;
    for number in 1..=options.nodes {
        furnish_node(cluster, options, number, plan, &credentials)?;
    }
    cluster.save()?;
    boot(cluster, options, CONTROL_PLANE).await?;
    let fence = Fence::new(1)?;
    let in_middle = cluster.place(CONTROL_PLANE, &fence, options.patience)?;
    wiring::build_middle(&in_middle, plan).await?;
    start_relay(cluster, options, plan).await?;
    let port = read_port(cluster, options.patience).await?;
    let server = format!("https://127.0.0.1:{port}");
    let text = credentials.authority.kubeconfig(&server, credentials.user("admin"));
    write_private(&cluster.kubeconfig(), &text)?;
    wait_for_api(cluster, options).await?;
    for manifest in options.primary.manifests(&options.tools)? {
        apply(cluster, options, &manifest.display().to_string(), Vec::new()).await?;
    }
    for number in 1..=options.nodes {
        start_node(cluster, options, &in_middle, &fence, number).await?;
    }
    import(cluster, &options.tools.built("images", "pause.tar")?, options.patience).await?;
    serve_names(cluster, options).await?;
    wait_for_nodes(cluster, options).await
}

fn furnish_node(
    cluster: &Cluster,
    options: &ClusterOptions,
    number: u8,
    plan: Plan,
    credentials: &Credentials,
) -> Result<(), UpError> {
    let name = node_name(number);
    let mut node = Machine::new(&name, cluster.folder.join(&name));
    let proxy = options.primary.service_proxy();
    let pods = options.pod_groups;
    worker::furnish(&mut node, (number, plan), &options.tools, credentials, proxy, pods)?;
    options.primary.furnish(&mut node, number, plan, &options.tools)?;
    save(&node)
}

fn save(machine: &Machine) -> Result<(), UpError> {
    machine.save().map_err(|source| UpError::Disk {
        step: format!("write down machine {}", machine.name),
        source,
    })
}

/// Boots a node and plugs it in.
async fn start_node(
    cluster: &mut Cluster,
    options: &ClusterOptions,
    middle: &Place,
    fence: &Fence,
    number: u8,
) -> Result<(), UpError> {
    let (name, plan) = (node_name(number), Plan { family: options.family });
    boot(cluster, options, &name).await?;
    let place = cluster.place(&name, fence, options.patience)?;
    wiring::plug(middle, &place, number, plan).await?;
    if options.primary.needs_routes() {
        wiring::route_pods(middle, number, plan).await?;
    }
    Ok(())
}

/// See [`Cluster::power_on`].
pub(super) async fn power_on(
    cluster: &mut Cluster,
    options: &ClusterOptions,
    node: &str,
) -> Result<(), UpError> {
    let number = (1..=options.nodes).find(|number| node_name(*number) == node);
    let number = number.ok_or_else(|| ExecError::Machine(node.to_owned()))?;
    let fence = Fence::new(1)?;
    let middle = cluster.place(CONTROL_PLANE, &fence, options.patience)?;
    start_node(cluster, options, &middle, &fence, number).await
}

/// Starts a machine and waits until its root stands.
async fn boot(cluster: &mut Cluster, options: &ClusterOptions, name: &str) -> Result<(), UpError> {
    let machine = Machine::new(name, cluster.folder.join(name));
    let disk = |step: String| move |source| UpError::Disk { step, source };
    if machine.booted().exists() {
        fs::remove_file(machine.booted()).map_err(disk(format!("boot {name}")))?;
    }
    // What a kernel would have forgotten.
    let _ = fs::remove_dir_all(machine.work());
    fs::create_dir_all(machine.work()).map_err(disk(format!("boot {name}")))?;
    let log = machine.log("boot");
    let mut job = Job::new(&options.program);
    job.args = vec![PART.into(), "boot".into(), machine.folder.clone().into()];
    let launcher = process::start_detached(&job, &log)?;
    let gone =
        || UpError::Disk { step: format!("boot {name}"), source: io::ErrorKind::NotFound.into() };
    let launcher = ProcessId::of(launcher).ok_or_else(gone)?;
    cluster.record.machines.retain(|machine| machine.name != name);
    cluster.record.machines.push(Running { name: name.to_owned(), launcher, init: None });
    cluster.save()?;
    let booted = async || match machine.booted().exists() {
        true => Ok(()),
        false => Err("its root does not stand".to_owned()),
    };
    settled(&format!("the boot of {name}"), &log, options.patience, booted).await?;
    let init = first_child(launcher).ok_or_else(gone)?;
    if let Some(running) = cluster.record.machines.last_mut() {
        running.init = Some(init);
    }
    cluster.save()
}

/// proc(5): the children of a thread.
fn first_child(parent: ProcessId) -> Option<ProcessId> {
    let pid = parent.pid;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    ProcessId::of(children.split_whitespace().next()?.parse().ok()?)
}

async fn start_relay(
    cluster: &mut Cluster,
    options: &ClusterOptions,
    plan: Plan,
) -> Result<(), UpError> {
    let netns = cluster.netns(CONTROL_PLANE)?;
    let to = SocketAddr::new(plan.control_plane()[0].ip(), API_PORT);
    let mut job = Job::new(&options.program);
    let told = cluster.folder.join("relay.port");
    job.args = vec![PART.into(), "relay".into(), netns.into(), to.to_string().into(), told.into()];
    let relay = process::start_detached(&job, &cluster.folder.join("relay.log"))?;
    cluster.record.relay = ProcessId::of(relay);
    cluster.save()
}

async fn read_port(cluster: &Cluster, patience: Duration) -> Result<u16, UpError> {
    let told = cluster.folder.join("relay.port");
    let read = async || fs::read_to_string(&told).map_err(|error| error.to_string());
    let log = cluster.folder.join("relay.log");
    let text = settled("the port of the relay to the API", &log, patience, read).await?;
    let wrong = |source| UpError::Disk { step: "read the relay's port".into(), source };
    text.trim().parse().map_err(io::Error::other).map_err(wrong)
}

/// Applies a manifest: a file's, or standard input's by the name of a hyphen.
async fn apply(
    cluster: &Cluster,
    options: &ClusterOptions,
    file: &str,
    input: Vec<u8>,
) -> Result<(), UpError> {
    let words = ["apply", "--server-side", "-f", file];
    let ran = cluster.kubectl(&options.tools, &words, input, options.patience).await?;
    if ran.ok() { Ok(()) } else { Err(UpError::Object(ran.stderr)) }
}

/// A name server, where its program was built.
async fn serve_names(cluster: &Cluster, options: &ClusterOptions) -> Result<(), UpError> {
    let Ok(image) = options.tools.built("images", "coredns.tar") else { return Ok(()) };
    import(cluster, &image, options.patience).await?;
    let objects = names::objects(Plan { family: options.family }).to_string();
    apply(cluster, options, "-", objects.into_bytes()).await
}

/// See [`Cluster::import`].
pub(super) async fn import(
    cluster: &Cluster,
    archive: &Path,
    patience: Duration,
) -> Result<(), UpError> {
    let read = |source| UpError::Disk { step: format!("read {}", archive.display()), source };
    let content = fs::read(archive).map_err(read)?;
    for (node, _) in cluster.machines().into_iter().filter(|(name, _)| *name != CONTROL_PLANE) {
        let socket = ["-a", worker::RUNTIME, "-n", "k8s.io"];
        let up = [&["ctr"], &socket[..], &["version"]].concat();
        let runs = async || match cluster.run(node, &up, Vec::new(), process::LOOK).await {
            Ok(ran) if ran.ok() => Ok(()),
            Ok(ran) => Err(ran.stderr),
            Err(error) => Err(error.to_string()),
        };
        let image = |said: String| UpError::Image {
            node: node.to_owned(),
            archive: archive.to_owned(),
            said,
        };
        let log = Machine::new(node, cluster.folder.join(node)).log("containerd");
        settled("containerd answering", &log, patience, runs).await?;
        let words = [&["ctr"], &socket[..], &["images", "import", "-"]].concat();
        let ran = cluster.run(node, &words, content.clone(), patience).await?;
        if !ran.ok() {
            return Err(image(ran.stderr));
        }
    }
    Ok(())
}

impl Cluster {
    fn save(&self) -> Result<(), UpError> {
        let step = || format!("write down cluster {}", self.record.name);
        self.record.write(&self.folder).map_err(|source| UpError::Disk { step: step(), source })
    }

    fn netns(&self, machine: &str) -> Result<PathBuf, ExecError> {
        let init = self.record.machine(machine).and_then(|running| running.init);
        let init = init.ok_or_else(|| ExecError::Machine(machine.to_owned()))?;
        Ok(format!("/proc/{}/ns/net", init.pid).into())
    }

    fn place(&self, machine: &str, fence: &Fence, patience: Duration) -> Result<Place, UpError> {
        Ok(place::of_path(machine, &self.netns(machine)?, fence, patience)?)
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), UpError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::File::options();
    file.write(true).create(true).truncate(true).mode(0o600);
    let written = file.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| UpError::Disk { step: format!("write {}", path.display()), source })
}
