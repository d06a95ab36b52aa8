//! Where an uninstall may begin: in the node's own network.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use netns::{NetnsId, PodNetns};

use super::UninstallError;

/// Process 1 of the node is in the node's network namespace. Where it cannot be seen nobody can
/// tell.
///
/// # Errors
/// [`UninstallError::NotTheNodes`].
pub(super) fn is_the_nodes(own: &PodNetns, processes: &Path) -> Result<(), UninstallError> {
    let first = processes.join("1/ns/net");
    let Ok(node) = std::fs::metadata(&first) else { return Ok(()) };
    let NetnsId { dev, ino, .. } = own.id();
    if (node.dev(), node.ino()) == (dev, ino) {
        return Ok(());
    }
    Err(UninstallError::NotTheNodes { first })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_nodes_network_is_that_of_its_first_process() {
        let processes = tempfile::tempdir().unwrap();
        let own = PodNetns::current().unwrap();
        assert!(is_the_nodes(&own, processes.path()).is_ok(), "nobody can tell");
        let first = processes.path().join("1/ns");
        std::fs::create_dir_all(&first).unwrap();
        symlink("/proc/thread-self/ns/net", first.join("net")).unwrap();
        assert!(is_the_nodes(&own, processes.path()).is_ok());
        let other = PodNetns::scratch().unwrap();
        let refused = is_the_nodes(&other, processes.path()).unwrap_err().to_string();
        assert!(refused.contains("hostNetwork: true"), "{refused}");
    }
}
