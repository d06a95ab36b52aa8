//! Wiring of the installation: where the runtime looks, and who hears what is wrong there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::config::Install;
use crate::install::binary::{self, Placed};
use crate::install::{self, Installer, Metrics, News};
use crate::kube::{EventReason, KubeApi};

/// How often it is looked whether the plugin's program is in its place.
const LOOK: Duration = Duration::from_secs(60);
/// After an attempt that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// The conflist stays when this ends: a restart is no removal.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    Install { places, program, settings }: Install,
    metrics: Metrics,
    (api, readiness): (KubeApi, Readiness),
    stop: &CancellationToken,
) {
    let found = install::find(&places);
    tracing::info!("{found}");
    if let (Some(program), Some(folder)) = (program, found.bin_dirs.first().cloned()) {
        let (api, stop) = (api.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(keep_program(&program, folder, &api)).await;
        });
    }
    let tell = move |news| match news {
        News::Contested(text) => api.tell_of_node(EventReason::ConflistContested, text),
        News::Trouble(text) => api.tell_of_node(EventReason::ConflistTrouble, text),
        News::Remark(text) => readiness.remark("installation", &text),
    };
    tasks.spawn(Installer::new(found, settings, metrics, tell).keep(stop.clone()));
}

/// The conflist waits for it.
async fn keep_program(program: &Path, folder: PathBuf, api: &KubeApi) {
    let mut trouble = String::new();
    loop {
        let pause = match binary::place(program, &folder).await {
            Ok(placed) => {
                if placed == Placed::Now {
                    tracing::info!(folder = %folder.display(), "the plugin's program is placed");
                }
                trouble.clear();
                LOOK
            }
            Err(error) => {
                let text = error.to_string();
                if text != trouble {
                    tracing::error!("{text}");
                    api.tell_of_node(EventReason::ConflistTrouble, text.clone());
                    trouble = text;
                }
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}
