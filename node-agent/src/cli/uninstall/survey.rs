//! Looks for everything of ours on the node. Changes nothing.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream;

use super::thing::{Thing, name};
use super::{Config, Node, files, listening};
use crate::config::Plugin;
use crate::install::{self, Folder, binary, cached};
use crate::pod_netns::{NodePlace, Record, every, recorded};

/// Pods looked into at once: each look starts programs.
const AT_ONCE: usize = 8;

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is to be removed, in that order.
    pub(super) things: Vec<Thing>,
    /// What could not be looked at.
    pub(super) troubles: Vec<String>,
    /// What people should know.
    pub(super) notes: Vec<String>,
}

impl Node {
    /// Everything of ours. What cannot be looked at does not keep from the rest.
    pub(super) async fn survey(&self) -> Found {
        let mut found = Found::default();
        self.conflists(&mut found);
        self.said(&mut found).await;
        self.pods(&mut found).await;
        match self.host.present().await {
            Ok(true) => found.things.push(Thing::Host),
            Ok(false) => {}
            Err(error) => found.troubles.push(format!("look for the node's probe rules: {error}")),
        }
        self.program(&mut found);
        match files::present(&self.config.run_dir, &self.config.outside) {
            Ok(files) => {
                found.things.extend(files.things);
                found.notes.extend(files.notes);
            }
            Err(error) => found.troubles.push(format!(
                "list the agent's directory {}: {error}",
                self.config.run_dir.0.display()
            )),
        }
        found
    }

    /// Also where an earlier life of the agent was told to install.
    fn conflists(&self, found: &mut Found) {
        let Config { places, conf_name, .. } = &self.config;
        let old = self.installed.other_conf(places);
        let old = old.iter().map(|seen| Folder::new(&places.root, seen));
        for folder in [places.conf()].into_iter().chain(old) {
            if folder.may_be_hidden() {
                found.notes.push(format!(
                    "network configurations in {} are not seen from here: if there are any, our \
                     entry stays in them",
                    folder.path().display()
                ));
            }
            match folder.read() {
                Ok(view) => {
                    let undo = install::undo(&view, conf_name);
                    let things = undo.changes.into_iter();
                    found.things.extend(things.map(|it| Thing::Conf(folder.clone(), it)));
                    found.troubles.extend(undo.troubles);
                    found.notes.extend(undo.notes);
                }
                Err(error) => found.troubles.push(error.to_string()),
            }
        }
    }

    async fn pods(&self, found: &mut Found) {
        let records: Vec<Record> = match recorded(&self.config.run_dir.pods()) {
            Ok(records) => records,
            Err(error) => {
                found.troubles.push(format!("the agent's records are not used: {error}"));
                Vec::new()
            }
        };
        let places = match every(&self.config.processes, self.own.id(), &records) {
            Ok(places) => places,
            Err(error) => {
                let root = self.config.processes.display();
                found.troubles.push(format!("look through the processes in {root}: {error}"));
                return;
            }
        };
        let looks = places.into_iter().map(|place| async {
            let present = self.rules.present(&place.netns).await;
            (place, present)
        });
        let looks: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        for (place, present) in looks {
            self.listeners(&place, found);
            match present {
                Ok(true) => found.things.push(Thing::Pod(place)),
                Ok(false) => {}
                Err(error) => found.troubles.push(format!("look into {}: {error}", name(&place))),
            }
        }
    }

    /// The sockets belong to ztunnel, or to an application that thinks the ports free.
    fn listeners(&self, place: &NodePlace, found: &mut Found) {
        let Ok(ports) = listening::ports(&self.fence, &place.netns) else { return };
        if ports.is_empty() {
            return;
        }
        let by = listening::holders(&self.config.processes, &ports);
        let list: Vec<_> = ports.keys().map(u16::to_string).collect();
        found.notes.push(format!(
            "{} still has listeners at {}, held by {by}: they go when that ends",
            name(place),
            list.join(", "),
        ));
    }

    fn program(&self, found: &mut Found) {
        let places = &self.config.places;
        let old = self.installed.other_bin(places);
        let folders = places.programs().into_iter().chain(old).collect::<BTreeSet<_>>();
        let present: Vec<_> = folders.iter().flat_map(|it| binary::present(it)).collect();
        if present.is_empty() {
            return;
        }
        let kept = match self.config.plugin {
            Plugin::Remove => None,
            Plugin::Keep => Some("as asked".to_owned()),
            Plugin::Auto => self.needed(found),
        };
        let Some(reason) = kept else {
            found.things.extend(present.into_iter().map(Thing::Program));
            return;
        };
        for path in present {
            if path.ends_with(binary::NAME) {
                found.notes.push(format!("plugin {} stays, {reason}", path.display()));
            } else {
                found.things.push(Thing::Program(path));
            }
        }
    }

    /// Why the program must stay.
    fn needed(&self, found: &mut Found) -> Option<String> {
        let cache = &self.config.cache_dir;
        let how = "run this again when they have ended, or with --plugin=remove";
        match cached::attachments(cache) {
            Ok(0) => None,
            Ok(1) => Some(format!("because a sandbox may need it for its DEL: {how}")),
            Ok(count) => {
                Some(format!("because {count} sandboxes may need it for their DEL: {how}"))
            }
            Err(error) => {
                found.troubles.push(format!("list {}: {error}", cache.display()));
                Some("because nobody knows which sandboxes need it".into())
            }
        }
    }
}
