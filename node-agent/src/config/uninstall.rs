//! Settings of the command that takes everything off the node. It takes from the agent's
//! settings what says where the agent works, and asks for nothing else of them: it must work
//! where an agent cannot start.

use std::path::PathBuf;

use capture::Options;
use clap::{Args, ValueEnum};

use super::{Mistakes, Raw, Reader};
use crate::cli::uninstall::{Config, Kube, Leave, Mode};
use crate::install::{self, leads_to};
use crate::rules::contract_options;
use crate::run_dir::RunDir;

/// The command's own settings as they were given.
#[derive(Clone, Debug, Args)]
pub struct RawUninstall {
    /// Let the connections through ztunnel end by themselves first, for at most
    /// `DRAIN_DEADLINE`. What is left then is ended; without this, all are ended at once.
    #[arg(long)]
    pub drain: bool,
    /// Print what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// What becomes of the plugin's program.
    #[arg(long, value_enum, default_value = "auto")]
    pub plugin: Plugin,
    /// Where is kept, on the node, which plugins its sandboxes were attached with.
    #[arg(long, env = "CNI_CACHE_DIR", default_value = "/var/lib/cni")]
    pub cni_cache_dir: PathBuf,
}

/// What becomes of the plugin's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plugin {
    /// It stays while a sandbox was attached with it: some runtimes call it when that ends.
    /// Without an agent it answers every DEL with success.
    Auto,
    /// It stays.
    Keep,
    /// It goes. Pods may then never end on runtimes that call it.
    Remove,
}

impl Raw {
    /// Understands the settings of an uninstall.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn understand_uninstall(self, own: &RawUninstall) -> Result<Config, Mistakes> {
        let mut reader = Reader::default();
        let kubeconfig = self.kubeconfig.clone().filter(|path| !path.as_os_str().is_empty());
        let deadline = reader.duration("DRAIN_DEADLINE", &self.drain_deadline);
        let config = Config {
            mode: if own.dry_run { Mode::Rehearsal } else { Mode::Earnest },
            leave: if own.drain { Leave::Drained(deadline) } else { Leave::AtOnce },
            plugin: own.plugin,
            run_dir: RunDir(reader.absolute("RUN_DIR", &self.run_dir)),
            outside: self.outside(&mut reader),
            processes: reader.absolute("HOST_PROC", &self.host_proc),
            places: install::find(&self.install.places(
                &self.install.cni_conf_dir,
                &self.install.cni_bin_dir,
                &mut reader,
            )),
            conf_name: self.install.own_list(&mut reader),
            cache_dir: leads_to(
                &self.install.host_root,
                &reader.absolute("CNI_CACHE_DIR", &own.cni_cache_dir),
            ),
            programs: self.programs(&mut reader),
            options: self.options(),
            kube: (!self.node_name.is_empty())
                .then(|| Kube { node: self.node_name.clone(), kubeconfig }),
            withdraw_wait: reader.duration("WITHDRAW_WAIT", &self.withdraw_wait),
        };
        if reader.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(reader.mistakes)) }
    }

    /// What counted for pods that said nothing themselves. Mistakes in it keep nobody from
    /// leaving.
    fn options(&self) -> Options {
        let mut aside = Reader::default();
        let settings = self.pods.clone().understand(&contract_options(), &mut aside);
        if aside.mistakes.is_empty() { settings.options } else { contract_options() }
    }

    /// The plugin gives its log another name when it is full.
    fn outside(&self, reader: &mut Reader) -> Vec<PathBuf> {
        let zds = reader.absolute("INPOD_UDS", &self.inpod_uds);
        let log = self.install.log_file(reader);
        let log = log.map(|log| leads_to(&self.install.host_root, &log));
        let full = log.as_ref().map(|log| PathBuf::from(format!("{}.1", log.display())));
        [Some(zds), log, full].into_iter().flatten().collect()
    }
}
