//! Who listens in a pod at the ports of a proxy. These sockets are not ours to close: they end
//! with the process that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use netns::{Fence, FenceError, PodNetns};
use zds::port;

/// Ports of ztunnel in a pod.
const PORTS: [u16; 4] = [port::OUTBOUND, port::INBOUND_PLAIN, port::INBOUND_HBONE, port::DNS];
/// Sockets of the namespace of who reads.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// How the kernel writes `TCP_LISTEN`.
const LISTENS: &str = "0A";

/// Ports at which somebody listens, and the inodes of the sockets.
pub(super) type Listening = BTreeMap<u16, BTreeSet<u64>>;

/// Who listens at a proxy's ports in `netns`.
///
/// # Errors
/// Any [`FenceError`].
pub(super) fn ports(fence: &Fence, netns: &PodNetns) -> Result<Listening, FenceError> {
    let read = || TABLES.map(|table| std::fs::read_to_string(table).unwrap_or_default()).concat();
    let mut listening = Listening::new();
    for (port, inode) in fence.run(netns, read)?.lines().filter_map(listener) {
        listening.entry(port).or_default().insert(inode);
    }
    Ok(listening)
}

/// The processes that have these sockets, in words, as far as `processes`, a `/proc`, tells.
pub(super) fn holders(processes: &Path, listening: &Listening) -> String {
    let inodes: BTreeSet<u64> = listening.values().flatten().copied().collect();
    let entries = std::fs::read_dir(processes).into_iter().flatten().flatten();
    let holds = |folder: &Path| {
        let sockets = std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
        sockets.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|link| {
            let inode = link.as_os_str().as_bytes();
            let inode = inode.strip_prefix(b"socket:[").and_then(|it| it.strip_suffix(b"]"));
            let inode = inode.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        })
    };
    let names = entries.map(|entry| entry.path()).filter(|folder| holds(folder)).map(|folder| {
        let comm = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let pid = folder.file_name().unwrap_or_default().to_string_lossy();
        format!("{} (process {pid})", comm.trim())
    });
    let names: BTreeSet<String> = names.collect();
    if names.is_empty() {
        return "a process that is not seen from here".into();
    }
    names.into_iter().collect::<Vec<_>>().join(" and ")
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`, addresses in
/// hexadecimal.
fn listener(line: &str) -> Option<(u16, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let port = u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok()?;
    let listens = words.nth(1)? == LISTENS;
    let inode = words.nth(5)?.parse().ok()?;
    (listens && PORTS.contains(&port)).then_some((port, inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::testing::ScratchPod;

    #[test]
    fn listeners_at_a_proxys_ports_are_named_with_who_has_them() {
        let (fence, pod) = (Fence::new(1).unwrap(), ScratchPod::new());
        assert_eq!(ports(&fence, &pod.netns()).unwrap(), Listening::new());
        let sockets = pod.inside(|| {
            ["0.0.0.0:15001", "[::]:15008", "0.0.0.0:8080"].map(|at| TcpListener::bind(at).unwrap())
        });
        let found = ports(&fence, &pod.netns()).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [15001, 15008]);
        let holders = holders(Path::new("/proc"), &found);
        assert!(holders.contains(&format!("(process {})", std::process::id())), "{holders}");
        drop(sockets);
        assert_eq!(ports(&fence, &pod.netns()).unwrap(), Listening::new());
    }
}
