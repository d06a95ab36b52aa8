//! Bringing a lab up, step by step; what fails half-way is removed again.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netns::{Fence, NamedNetns};

use crate::errors::LabError;
use crate::leftovers;
use crate::net::{self, NetError};
use crate::node::{MeshSettings, Node};
use crate::options::Options;
use crate::place::Place;
use crate::state::{Ledger, ProcessId, State};
use crate::sweep;

/// The folder of a lab that is being started; removed unless it gets that far.
pub(crate) struct Ground {
    id: String,
    pub folder: PathBuf,
    ledger: Option<Arc<Ledger>>,
}

impl Ground {
    pub fn prepare(options: &Options) -> Result<Self, LabError> {
        let root = &options.root;
        fs::create_dir_all(root).map_err(folder_error(root))?;
        // Each dead lab was reported to the log.
        let _ = sweep::sweep(root);
        let id = format!("{:06x}", RandomState::new().hash_one(std::process::id()) & 0x00ff_ffff);
        let folder = root.join(&id);
        // A sweep must never meet a folder without its state.
        let unfinished = root.join(format!("{}{id}", sweep::UNFINISHED));
        let links = (1..=options.nodes).map(|node| net::port_name(node, &id)).collect();
        let lab = ProcessId::of(std::process::id().cast_signed())
            .ok_or(io::ErrorKind::NotFound.into())
            .map_err(folder_error(Path::new("/proc/self")))?;
        let state = State { lab, links, children: Vec::new() };
        let made = fs::create_dir(&unfinished)
            .and_then(|()| state.write(&unfinished))
            .and_then(|()| fs::rename(&unfinished, &folder));
        made.map_err(folder_error(&folder))?;
        let ledger = Some(Arc::new(Ledger::new(&folder, state)));
        Ok(Self { id, folder, ledger })
    }

    pub fn netns_folder(&self) -> PathBuf {
        self.folder.join("netns")
    }

    pub fn netns(
        &self,
        name: &str,
        fence: &Fence,
        options: &Options,
    ) -> Result<(Place, NamedNetns), LabError> {
        let named = NamedNetns::create(&self.netns_folder(), name).map_err(NetError::from)?;
        Ok((Place::new(name, &named, fence, options.patience), named))
    }

    pub async fn node(
        &self,
        number: u8,
        hub: &Place,
        fence: &Fence,
        options: &Options,
        mesh: Option<&MeshSettings>,
    ) -> Result<Node, LabError> {
        let (place, named) = self.netns(&format!("node{number}"), fence, options)?;
        let Options { nodes, family, .. } = *options;
        net::build_node(hub, &place, &self.id, number, nodes, family).await?;
        Node::new(number, place, named, &self.folder, family, mesh, &self.ledger())
            .map_err(folder_error(&self.folder))
    }

    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf, LabError> {
        let path = self.folder.join(name);
        fs::write(&path, content).map_err(folder_error(&path))?;
        Ok(path)
    }

    fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(self.ledger.as_ref().expect("held until the lab has come up"))
    }

    pub fn keep(mut self) -> (String, PathBuf, Arc<Ledger>) {
        let ledger = self.ledger();
        self.ledger = None;
        (self.id.clone(), self.folder.clone(), ledger)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            leftovers::remove(&self.folder, &ledger.state());
        }
    }
}

fn folder_error(path: &Path) -> impl FnOnce(io::Error) -> LabError {
    move |source| LabError::Folder { path: path.to_owned(), source }
}
