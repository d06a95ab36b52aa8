//! Wiring of the installation: where the runtime looks, and who hears what is wrong there.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::config::Install;
use crate::install::{self, Installer, Metrics, News};
use crate::kube::{EventReason, KubeApi};

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
    let tell = move |news| match news {
        News::Contested(text) => api.tell_of_node(EventReason::ConflistContested, text),
        News::Trouble(text) => api.tell_of_node(EventReason::ConflistTrouble, text),
        News::Remark(text) => readiness.remark("installation", &text),
    };
    let installer = Installer::new(found, settings, metrics, tell).with_program(program);
    tasks.spawn(installer.keep(stop.clone()));
}
