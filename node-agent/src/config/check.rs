//! Settings of the command that looks at cluster and node.

use clap::Args;

use super::{Mistakes, Raw, Reader};
use crate::cli::check::{Config, NodePlaces, Output};
use crate::install;

/// The command's own settings as they were given.
#[derive(Clone, Debug, Args)]
pub struct RawCheck {
    /// How findings are told.
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

impl Raw {
    /// Understands the settings of a check. With a node's name, the node on which it runs is
    /// looked at.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn understand_check(self, own: &RawCheck) -> Result<Config, Mistakes> {
        let mut reader = Reader::default();
        let node = (!self.node_name.is_empty()).then(|| self.node_places(&mut reader));
        let config = Config {
            output: own.output,
            kubeconfig: self.kubeconfig.filter(|path| !path.as_os_str().is_empty()),
            enrollment: self.pods.understand(&crate::rules::contract_options(), &mut reader),
            probe_source: reader.probe_source(&self.probe_source),
            node,
        };
        if reader.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(reader.mistakes)) }
    }

    /// A program that is missing is a finding, and no mistake.
    fn node_places(&self, reader: &mut Reader) -> NodePlaces {
        let mut missing = Reader::default();
        let programs = self.programs(&mut missing);
        let missing = missing.mistakes;
        NodePlaces {
            name: self.node_name.clone(),
            programs: if missing.is_empty() { Ok(programs) } else { Err(missing.join("; ")) },
            processes: reader.absolute("HOST_PROC", &self.host_proc),
            places: install::find(&self.install.places(
                &self.install.cni_conf_dir,
                &self.install.cni_bin_dir,
                reader,
            )),
            admin: reader.address("ADMIN_ADDR", &self.admin_addr),
        }
    }
}
