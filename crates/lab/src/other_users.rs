//! Network namespaces that belong to another user namespace than the node's, as those of pods
//! with `hostUsers: false`.

use std::fs::File;
use std::path::Path;

use netns::NamedNetns;

use crate::kubelet::PodFailure;
use crate::process::{self, Job};

/// Only a process with one thread can make a user namespace: a helper does, and its network
/// namespace is bound to the file `$1` from outside, since those within may not.
const MAKE: &str = "\
    unshare --user --map-root-user --net sleep 60 & helper=$!
    while [ \"/proc/$helper/ns/net\" -ef \"/proc/$$/ns/net\" ]; do
        kill -0 \"$helper\" || exit 1
        sleep 0.01
    done
    mount --bind \"/proc/$helper/ns/net\" \"$1\"; bound=$?
    kill \"$helper\"
    exit \"$bound\"";

/// Makes one, bound to the file `name` of `folder`.
pub(crate) async fn namespace(folder: &Path, name: &str) -> Result<NamedNetns, PodFailure> {
    let path = folder.join(name);
    let failed = |error: &dyn std::fmt::Display| PodFailure::Users(error.to_string());
    File::create_new(&path).map_err(|error| failed(&error))?;
    let target = path.display().to_string();
    let made = process::run(None, Job::of(&["sh", "-c", MAKE, "sh", &target])).await;
    let made = made.map_err(|error| error.to_string());
    let bound = made.and_then(|ran| if ran.ok() { Ok(()) } else { Err(ran.stderr) });
    if let Err(error) = bound {
        // The reason is told; a file that cannot be removed would only hide it.
        let _ = std::fs::remove_file(&path);
        return Err(failed(&error));
    }
    Ok(NamedNetns::adopt(folder, name)?)
}
