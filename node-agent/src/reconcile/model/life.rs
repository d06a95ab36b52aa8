//! What happens to pods, processes and rules, and how it all comes to rest.

use super::{Fault, Rules, Sandbox, World};
use crate::enrollment::Key;
use crate::facts::PodUid;
use crate::reconcile::{Action, Fact, State};
use crate::testing::pod;

/// Pods at a time.
const CROWD: usize = 3;
/// Steps after which everything must be at rest.
const PATIENCE: usize = 400;

impl World {
    pub(super) fn something_happens(&mut self) {
        match self.rng.u8(..39) {
            0..3 => self.create_pod(),
            3..6 => self.start_sandbox(),
            6..8 => self.start_unseen(),
            8 => self.end_sandbox(),
            9 => self.remove_pod(),
            10 => self.begin_deletion(),
            11..14 => {
                self.flip_label();
                // Most news come soon.
                self.deliver();
            }
            14 => self.flip_namespace(),
            15..18 => self.deliver(),
            18 => {
                self.tell("the watch lists again");
                self.relist();
            }
            19 => {
                self.tell("the agent is killed");
                self.agent = None;
            }
            20..23 if self.agent.is_none() => self.start_agent(),
            23 => self.flip_ztunnel(),
            24 => self.damage(),
            25 => self.glance(),
            26..28 => {
                self.flip_option();
                self.deliver();
            }
            28 => self.older_connections_are_due(),
            _ => {
                let known = self.known();
                if let Some(uid) = any(&mut self.rng, known) {
                    let _ = self.tend(&uid);
                }
            }
        }
    }

    fn create_pod(&mut self) {
        if self.pods.len() >= CROWD {
            return;
        }
        let number = self.next();
        // The same name again and again: only the UID is new.
        let mut facts = pod("web");
        facts.uid = PodUid(format!("uid-{number}"));
        facts.dataplane_mode = self.any_mode();
        self.tell(format!("{} is created, {:?}", facts.uid.0, facts.dataplane_mode));
        self.news.push_back(Fact::Pod(facts.clone()));
        self.pods.insert(facts.uid.clone(), facts);
    }

    fn any_mode(&mut self) -> Option<String> {
        ["ambient", "none"].get(self.rng.usize(..3)).map(|mode| (*mode).to_owned())
    }

    fn any_pod(&mut self) -> Option<PodUid> {
        let pods = self.pods.keys().cloned().collect();
        any(&mut self.rng, pods)
    }

    /// A kubelet makes a sandbox for a pod that has none, or in the place of a dead one.
    fn start_sandbox(&mut self) {
        let Some(uid) = self.any_pod().filter(|uid| !self.pods[uid].terminating) else { return };
        if let Some(old) = self.sandbox_of(&uid).cloned() {
            if self.rng.bool() {
                return;
            }
            self.end(&old);
        }
        let container = self.new_sandbox(&uid);
        self.tell(format!("{}: ADD of {container}", uid.0));
        if !self.add(&uid, &container) {
            self.tell("ADD fails");
            self.end(&container);
        }
    }

    fn new_sandbox(&mut self, uid: &PodUid) -> String {
        let container = format!("c{:04}", self.next());
        let sandbox = Sandbox { uid: uid.clone(), rules: Rules::None, captured: false };
        self.sandboxes.insert(container.clone(), sandbox);
        container
    }

    fn sandbox(&mut self, container: &str) -> &mut Sandbox {
        self.sandboxes.get_mut(container).unwrap()
    }

    /// A pod that started before the plugin was in place.
    fn start_unseen(&mut self) {
        let Some(uid) = self.any_pod() else { return };
        if self.sandbox_of(&uid).is_none() && !self.records.contains_key(&uid) {
            let container = self.new_sandbox(&uid);
            self.tell(format!("{}: {container} starts unseen", uid.0));
        }
    }

    fn end_sandbox(&mut self) {
        let all = self.sandboxes.keys().cloned().collect();
        if let Some(container) = any(&mut self.rng, all) {
            self.end(&container);
        }
    }

    /// DEL comes late, or never: the node lost power, or somebody removed the sandbox.
    fn end(&mut self, container: &String) {
        self.tell(format!("{container} ends"));
        if self.rng.u8(..8) != 0 {
            self.del(container);
        }
        self.sandboxes.remove(container);
    }

    fn begin_deletion(&mut self) {
        let Some(uid) = self.any_pod() else { return };
        self.tell(format!("{} is being deleted", uid.0));
        let facts = self.pods.get_mut(&uid).unwrap();
        facts.terminating = true;
        self.news.push_back(Fact::Pod(facts.clone()));
    }

    fn remove_pod(&mut self) {
        let Some(uid) = self.any_pod() else { return };
        self.tell(format!("{} is gone", uid.0));
        self.pods.remove(&uid);
        self.news.push_back(Fact::PodGone(uid.clone()));
        if let Some(container) = self.sandbox_of(&uid).cloned() {
            self.end(&container);
        }
    }

    fn flip_label(&mut self) {
        let Some(uid) = self.any_pod() else { return };
        let mode = self.any_mode();
        self.tell(format!("{} is labelled {mode:?}", uid.0));
        let facts = self.pods.get_mut(&uid).unwrap();
        facts.dataplane_mode = mode;
        self.news.push_back(Fact::Pod(facts.clone()));
    }

    fn flip_option(&mut self) {
        let Some(uid) = self.any_pod() else { return };
        let text = ["", "22", "22,80"][self.rng.usize(..3)];
        self.tell(format!("{} excludes {text:?}", uid.0));
        let facts = self.pods.get_mut(&uid).unwrap();
        facts.options = [(Key::ExcludeOutboundPorts, text.to_owned())].into();
        self.news.push_back(Fact::Pod(facts.clone()));
    }

    fn flip_namespace(&mut self) {
        self.namespace.dataplane_mode = self.any_mode();
        self.tell(format!("the namespace is labelled {:?}", self.namespace.dataplane_mode));
        self.news.push_back(Fact::Namespace(self.namespace.clone()));
    }

    /// The watch brings what comes next.
    fn deliver(&mut self) {
        let news = self.news.pop_front();
        if let (Some(news), Some(agent)) = (news, &mut self.agent) {
            agent.table.observe(news);
        }
    }

    fn flip_ztunnel(&mut self) {
        self.tell("ztunnel comes or goes");
        self.ztunnel = match self.ztunnel {
            Some(_) => None,
            None => Some(Default::default()),
        };
        self.send_snapshot();
    }

    fn damage(&mut self) {
        let captured =
            self.sandboxes.iter().filter(|(_, it)| matches!(it.rules, Rules::Capture(_)));
        let captured = captured.map(|(container, _)| container.clone()).collect();
        let Some(container) = any(&mut self.rng, captured) else { return };
        self.tell(format!("the rules of {container} are damaged"));
        self.sandbox(&container).rules = Rules::Damaged;
    }

    /// What the kernel's notifications, and the looks between them, are for.
    fn glance(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        for (container, sandbox) in &self.sandboxes {
            let Some(pod) = agent.table.get_mut(&sandbox.uid) else { continue };
            let its = pod.attachment.as_ref().is_some_and(|it| it.container_id == *container);
            let stands =
                matches!(&sandbox.rules, Rules::Capture(it) if Some(it) == pod.applied.as_ref());
            pod.due |= its && pod.state == State::Captured && !stands;
        }
    }

    /// Nobody can end them, for ever: the program for it is missing.
    fn older_connections_are_due(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let known: Vec<_> = agent.table.pods().map(|(uid, _)| uid.clone()).collect();
        let Some(uid) = any(&mut self.rng, known) else { return };
        self.story.push(format!("{}: the time of older connections is over", uid.0));
        if let Some(pod) = agent.table.get_mut(&uid) {
            pod.older_due = pod.state == State::Captured;
        }
    }

    /// Nothing else fails any more, and everybody may finish.
    pub(super) fn come_to_rest(&mut self) -> Result<(), String> {
        self.tell("peace");
        self.chaos = false;
        if self.ztunnel.is_none() {
            self.flip_ztunnel();
        }
        if self.agent.is_none() {
            self.start_agent();
        }
        while !self.news.is_empty() {
            self.deliver();
        }
        // A pod that the watch has never shown is missed by the second list only.
        self.relist();
        self.relist();
        for _ in 0..PATIENCE {
            self.glance();
            // A pod that has no namespace to be found is looked for again and again.
            let busy = |uid: &PodUid| self.plan(uid) != Action::Idle && self.sandbox_or_end(uid);
            let Some(uid) = self.known().into_iter().find(busy) else { return Ok(()) };
            if let Err(Fault::Died) = self.tend(&uid) {
                return Err("the agent died in peace".into());
            }
            while !self.news.is_empty() {
                self.deliver();
            }
            self.check()?;
        }
        Err(format!("no rest after {PATIENCE} steps"))
    }

    fn sandbox_or_end(&self, uid: &PodUid) -> bool {
        self.plan(uid) == Action::Forget || self.sandbox_of(uid).is_some()
    }
}

fn any<T>(rng: &mut fastrand::Rng, mut all: Vec<T>) -> Option<T> {
    if all.is_empty() { None } else { Some(all.swap_remove(rng.usize(..all.len()))) }
}
