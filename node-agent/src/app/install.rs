//! Wiring of the installation: where the runtime looks, and who hears what is wrong there.

use std::path::PathBuf;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{Condition, Readiness};
use crate::config::Install;
use crate::install::{self, Installer, Metrics, News, Standing};
use crate::kube::{EventReason, KubeApi};

/// Who hears of it.
pub(super) struct Told {
    pub(super) api: KubeApi,
    pub(super) readiness: Readiness,
    pub(super) standing: Standing,
}

/// The conflist stays when this ends: a restart is no removal.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    Install { places, program, settings }: Install,
    record: PathBuf,
    metrics: Metrics,
    Told { api, readiness, standing }: Told,
    stop: &CancellationToken,
) {
    let found = install::find(&places);
    tracing::info!("{found}");
    let tell = move |news| match news {
        News::Contested(text) => api.tell_of_node(EventReason::ConflistContested, text),
        News::Trouble(text) => api.tell_of_node(EventReason::ConflistTrouble, text),
        News::Remark(text) => readiness.remark("installation", &text),
        News::InPlace => readiness.fulfil(Condition::Installed),
    };
    let installer = Installer::new(found, settings, metrics, tell)
        .with_program(program)
        .with_standing(standing)
        .with_record(record);
    tasks.spawn(installer.keep(stop.clone()));
}
