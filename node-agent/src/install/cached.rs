//! Which sandboxes will ask for the plugin when they end.
//!
//! Whoever attached a sandbox keeps what it was attached with until DEL, on disk: libcni in
//! `results`, Multus in `multus`, under `/var/lib/cni`. Some runtimes (CRI-O, Multus) call at
//! DEL what stands there, not what the configuration says by then. Where the plugin's program
//! is not there any more, that DEL fails, and the pod never ends.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::binary::NAME;

/// Folders of those who keep such files.
const KEEPERS: [&str; 2] = ["results", "multus"];

/// How many attachments are kept under `cache` (`/var/lib/cni`) that were made with our plugin.
/// A file that cannot be read counts: it may be one.
///
/// # Errors
/// When a folder is there and cannot be listed.
pub fn attachments(cache: &Path) -> io::Result<usize> {
    let mut count = 0;
    for keeper in KEEPERS {
        let entries = match std::fs::read_dir(cache.join(keeper)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
        count += files.filter(|path| is_of_ours(path)).count();
    }
    Ok(count)
}

/// What libcni keeps, as far as it matters here: bytes, as Go writes them.
#[derive(Deserialize)]
struct Cached {
    config: String,
}

fn is_of_ours(path: &Path) -> bool {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    if text.contains(NAME) {
        return true;
    }
    let config = serde_json::from_str(&text).ok().map(|Cached { config }| config);
    let config = config.and_then(|config| BASE64_STANDARD.decode(config).ok()).unwrap_or_default();
    String::from_utf8_lossy(&config).contains(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_of_ours_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(attachments(folder.path()).unwrap(), 0);
        for keeper in KEEPERS {
            std::fs::create_dir(folder.path().join(keeper)).unwrap();
        }
        let cached = |name: &str, type_: &str| {
            let config = format!(r#"{{"plugins":[{{"type":"bridge"}},{{"type":"{type_}"}}]}}"#);
            let config = BASE64_STANDARD.encode(config);
            let text = format!(r#"{{"kind":"cniCacheV1","containerId":"c","config":"{config}"}}"#);
            std::fs::write(folder.path().join("results").join(name), text).unwrap();
        };
        cached("net-c1-eth0", "portmap");
        assert_eq!(attachments(folder.path()).unwrap(), 0);
        cached("net-c2-eth0", "sluice-cni");
        let delegate = r#"[{"Conf":{"plugins":[{"type":"sluice-cni"}]}}]"#;
        std::fs::write(folder.path().join("multus/c3"), delegate).unwrap();
        std::fs::write(folder.path().join("results/odd"), "{").unwrap();
        assert_eq!(attachments(folder.path()).unwrap(), 2);
    }
}
