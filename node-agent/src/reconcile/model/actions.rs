//! What the agent does, step by step, in the order of `effects`, `act` and `attach`.

use std::time::Instant;

use capture::Options;

use super::{Agent, Container, Fault, Rules, World};
use crate::enrollment::Enrollment;
use crate::facts::{Annotations, PodUid};
use crate::reconcile::attach::may_start_outside;
use crate::reconcile::{Action, Attachment, Fact, Outcome, State};
use crate::ztunnel_link::Ack;

impl World {
    /// A new process: what an earlier one has written down is looked for in the pods, before
    /// ztunnel is told anything.
    pub(super) fn start_agent(&mut self) {
        self.tell("an agent starts");
        let mut agent = Agent::default();
        for (uid, container) in &self.records {
            agent.table.restore(uid, attachment(container));
        }
        self.agent = Some(agent);
        self.relist();
        let known: Vec<_> = self.known().into_iter().filter(|uid| self.is_attached(uid)).collect();
        for uid in known {
            if self.plan(&uid) != Action::Look {
                continue;
            }
            match self.look(&uid) {
                Ok(()) => {}
                Err(Fault::Died) => return,
                // Most likely it is served: ztunnel is told to keep it.
                Err(Fault::Failed) => {
                    let said = self.pods.get(&uid).is_some_and(|pod| pod.annotations.redirection);
                    let served = self.ztunnel.as_ref().and_then(|served| served.get(&uid));
                    if let (true, Some(served), Some(agent)) = (said, served, &mut self.agent) {
                        agent.roster.insert(uid.clone(), served.clone());
                    }
                }
            }
        }
        self.send_snapshot();
    }

    fn is_attached(&self, uid: &PodUid) -> bool {
        let pod = self.agent.as_ref().and_then(|agent| agent.table.get(uid));
        pod.is_some_and(|pod| {
            let said = pod.facts.as_ref().is_some_and(|facts| facts.annotations.redirection);
            pod.attachment.is_some() || said
        })
    }

    /// A ztunnel that connects serves whom the agent names, and nobody else.
    pub(super) fn send_snapshot(&mut self) {
        if let (Some(agent), Some(served)) = (&self.agent, &mut self.ztunnel) {
            served.clone_from(&agent.roster);
        }
    }

    /// The watch lists everything again.
    pub(super) fn relist(&mut self) {
        self.news.clear();
        let (pods, namespace) = (self.pods.values().cloned().collect(), self.namespace.clone());
        if let Some(agent) = &mut self.agent {
            agent.table.observe(Fact::Namespaces(vec![namespace]));
            agent.table.observe(Fact::Pods(pods));
        }
    }

    pub(super) fn known(&self) -> Vec<PodUid> {
        let agent = self.agent.iter();
        agent.flat_map(|agent| agent.table.pods().map(|(uid, _)| uid.clone())).collect()
    }

    pub(super) fn plan(&self, uid: &PodUid) -> Action {
        let ack = self.ack(uid);
        let agent = self.agent.as_ref();
        agent.map_or(Action::Idle, |agent| agent.table.plan(uid, &self.settings, &ack))
    }

    /// The pod's task goes on, once.
    pub(super) fn tend(&mut self, uid: &PodUid) -> Result<(), Fault> {
        let action = self.plan(uid);
        if action != Action::Idle {
            self.tell(format!("{}: {}", uid.0, action.name()));
        }
        match action {
            Action::Idle => Ok(()),
            Action::Look => self.look(uid),
            Action::Capture(options) => {
                let container = self.found(uid)?;
                let captured = self.capture(uid, &container, &options);
                let rules = self.sandboxes.get(&container).map(|sandbox| &sandbox.rules);
                if captured == Err(Fault::Failed) && rules.is_some_and(|it| *it != Rules::None) {
                    self.becomes(uid, Outcome::LeftBehind)?;
                }
                captured?;
                self.becomes(uid, Outcome::InPlace(options))
            }
            Action::Repair(options) => {
                let container = self.found(uid)?;
                self.keep_closed(uid, &container)?;
                self.repair(uid, &container, &options)?;
                self.becomes(uid, Outcome::InPlace(options))
            }
            Action::Verify(options) => self.verify(uid, &options),
            Action::Annotate(said) => self.annotate(uid, &said),
            Action::Withdraw => {
                self.annotate(uid, &Annotations::default())?;
                self.becomes(uid, Outcome::Withdrawn)
            }
            Action::AwaitPeers => self.becomes(uid, Outcome::PeersKnow),
            Action::Drain(_) => {
                let container = self.found(uid)?;
                self.write(&container, Rules::Drained)?;
                self.becomes(uid, Outcome::Draining)
            }
            Action::AwaitDrained => self.becomes(uid, Outcome::Drained),
            Action::Remove => {
                let container = self.found(uid)?;
                self.let_go(uid)?;
                self.write(&container, Rules::None)?;
                self.becomes(uid, Outcome::Removed)
            }
            Action::EndOlder(_) => self.becomes(uid, Outcome::OlderNotEnded(Instant::now())),
            Action::Forget => self.forget(uid),
        }
    }

    /// Where the pod's namespace is: as the plugin has told, else as the runtime tells.
    fn found(&mut self, uid: &PodUid) -> Result<Container, Fault> {
        self.step()?;
        let recorded = self.records.get(uid).filter(|it| self.sandboxes.contains_key(*it));
        let found = recorded.or_else(|| self.sandbox_of(uid)).cloned().ok_or(Fault::Failed)?;
        self.records.insert(uid.clone(), found.clone());
        let pod = self.agent()?.table.get_mut(uid).ok_or(Fault::Failed)?;
        pod.attachment.get_or_insert_with(|| attachment(&found));
        Ok(found)
    }

    fn look(&mut self, uid: &PodUid) -> Result<(), Fault> {
        if self.agent()?.table.get(uid).is_none_or(|pod| pod.facts.is_none()) {
            return Err(Fault::Failed);
        }
        let container = self.found(uid)?;
        let settings = self.settings.clone();
        let wanted = self.agent()?.table.options(uid, &settings);
        let rules = self.sandboxes.get(&container).map(|sandbox| sandbox.rules.clone());
        let outcome = match rules {
            None | Some(Rules::None) => Outcome::FoundNothing,
            Some(Rules::Capture(options)) if options == wanted => {
                Outcome::FoundCaptured(Some(options))
            }
            Some(_) => Outcome::FoundCaptured(None),
        };
        if outcome != Outcome::FoundNothing {
            self.step()?;
            self.agent()?.roster.insert(uid.clone(), container.clone());
            if let Some(served) = &mut self.ztunnel {
                served.insert(uid.clone(), container);
            }
        }
        self.becomes(uid, outcome)
    }

    fn capture(
        &mut self,
        uid: &PodUid,
        container: &Container,
        options: &Options,
    ) -> Result<(), Fault> {
        let captured = self
            .serve(uid, container)
            .and_then(|()| self.write(container, Rules::Capture(options.clone())))
            .and_then(|()| self.step());
        if captured == Err(Fault::Failed) {
            self.undo(uid, container)?;
        }
        captured
    }

    /// In reverse order. What cannot be taken back stays: the caller has an error already.
    fn undo(&mut self, uid: &PodUid, container: &Container) -> Result<(), Fault> {
        let written = self.write(container, Rules::None);
        let gone = self.let_go(uid);
        if written == Err(Fault::Died) || gone == Err(Fault::Died) {
            return Err(Fault::Died);
        }
        Ok(())
    }

    fn repair(
        &mut self,
        uid: &PodUid,
        container: &Container,
        options: &Options,
    ) -> Result<(), Fault> {
        if self.ack(uid) != Ack::Serving {
            self.serve(uid, container)?;
        }
        self.write(container, Rules::Capture(options.clone()))?;
        self.step()
    }

    /// A failure does not end the repair that it stands before.
    fn keep_closed(&mut self, uid: &PodUid, container: &Container) -> Result<(), Fault> {
        let pod = self.agent()?.table.get(uid).filter(|pod| pod.state == State::Captured);
        let Some(options) = pod.and_then(|pod| pod.applied.clone()) else { return Ok(()) };
        match self.put_right(container, &options) {
            Err(Fault::Died) => Err(Fault::Died),
            _ => Ok(()),
        }
    }

    fn put_right(&mut self, container: &Container, options: &Options) -> Result<(), Fault> {
        let wanted = Rules::Capture(options.clone());
        match self.sandboxes.get(container) {
            Some(sandbox) if sandbox.rules != wanted => self.write(container, wanted),
            _ => Ok(()),
        }
    }

    fn verify(&mut self, uid: &PodUid, options: &Options) -> Result<(), Fault> {
        let container = self.found(uid)?;
        self.put_right(&container, options)?;
        self.becomes(uid, Outcome::InPlace(options.clone()))?;
        if self.agent()?.roster.get(uid) != Some(&container) {
            self.serve(uid, &container)?;
        }
        Ok(())
    }

    fn annotate(&mut self, uid: &PodUid, said: &Annotations) -> Result<(), Fault> {
        self.step()?;
        let container = self.sandbox_of(uid).cloned();
        let open = container.is_some_and(|it| !self.sandboxes[&it].captured);
        if said.redirection && open {
            self.wrong = Some(format!("peers are told to tunnel to {}, not captured", uid.0));
        }
        let pod = self.pods.get_mut(uid).ok_or(Fault::Failed)?;
        pod.annotations = said.clone();
        self.news.push_back(Fact::Pod(pod.clone()));
        if let Some(facts) = self.agent()?.table.get_mut(uid).and_then(|pod| pod.facts.as_mut()) {
            facts.annotations = said.clone();
        }
        Ok(())
    }

    fn forget(&mut self, uid: &PodUid) -> Result<(), Fault> {
        let attachment = self.agent()?.table.get(uid).and_then(|pod| pod.attachment.clone());
        let container = attachment.map(|attachment| attachment.container_id);
        let stored = self.step();
        if stored == Ok(()) && container.as_ref() == self.records.get(uid) {
            self.records.remove(uid);
        }
        let gone = self.let_go(uid);
        // Struck off whatever ztunnel and the disk have answered.
        self.agent()?.table.forgotten(uid);
        stored.and(gone)
    }

    /// ztunnel is asked to serve, and says that it does.
    fn serve(&mut self, uid: &PodUid, container: &Container) -> Result<(), Fault> {
        self.agent()?.roster.insert(uid.clone(), container.clone());
        self.step()?;
        let served = self.ztunnel.as_mut().ok_or(Fault::Failed)?;
        served.insert(uid.clone(), container.clone());
        Ok(())
    }

    fn let_go(&mut self, uid: &PodUid) -> Result<(), Fault> {
        self.agent()?.roster.remove(uid);
        let answered = self.step();
        // One that does not answer in time has heard it all the same.
        if answered != Err(Fault::Died)
            && let Some(served) = &mut self.ztunnel
        {
            served.remove(uid);
        }
        answered
    }

    /// One transaction: wholly done or not at all. A namespace that is gone takes nothing.
    fn write(&mut self, container: &Container, rules: Rules) -> Result<(), Fault> {
        self.step()?;
        let sandbox = self.sandboxes.get_mut(container).ok_or(Fault::Failed)?;
        let opens = !matches!(rules, Rules::Capture(_));
        let said = self.pods.get(&sandbox.uid).is_some_and(|pod| pod.annotations.redirection);
        if opens && sandbox.captured && said {
            let wrong = format!("{} is opened while peers tunnel to it", sandbox.uid.0);
            self.wrong = Some(wrong);
        }
        sandbox.captured &= !opens;
        sandbox.rules = rules;
        Ok(())
    }

    /// ADD of a new sandbox; `false` tells the runtime to try again later.
    pub(super) fn add(&mut self, uid: &PodUid, container: &Container) -> bool {
        self.let_in(uid, container).is_ok()
    }

    fn let_in(&mut self, uid: &PodUid, container: &Container) -> Result<(), Fault> {
        let facts = self.pods.get(uid).cloned().ok_or(Fault::Failed)?;
        let (settings, namespace) = (self.settings.clone(), self.namespace.clone());
        let table = &mut self.agent()?.table;
        if table.namespace(&namespace.name).is_none() {
            table.observe(Fact::Namespace(namespace));
        }
        table.attach(uid, facts, attachment(container));
        let wanted = table.wanted(uid, &settings);
        self.records.insert(uid.clone(), container.clone());
        let let_in = match wanted {
            Some(Enrollment::Capture(options)) => self.capture_new(uid, container, options),
            Some(Enrollment::Skip(reason)) if may_start_outside(&reason) => {
                let roster = &self.agent()?.roster;
                if roster.contains_key(uid) { self.let_go(uid) } else { Ok(()) }
            }
            _ => Err(Fault::Failed),
        };
        if let_in == Err(Fault::Failed) {
            self.records.remove(uid);
            self.agent()?.table.forgotten(uid);
        }
        let_in
    }

    fn capture_new(
        &mut self,
        uid: &PodUid,
        container: &Container,
        options: Options,
    ) -> Result<(), Fault> {
        let is_captured =
            |agent: &Agent| agent.table.get(uid).is_some_and(|pod| pod.state == State::Captured);
        if is_captured(self.agent()?) {
            self.repair(uid, container, &options)?;
        } else {
            self.capture(uid, container, &options)?;
        }
        self.becomes(uid, Outcome::InPlace(options))
    }

    /// DEL, which always succeeds.
    pub(super) fn del(&mut self, container: &Container) {
        let known = self.records.iter().find(|(_, known)| *known == container);
        let Some(uid) = known.map(|(uid, _)| uid.clone()) else { return };
        if let Some(agent) = &mut self.agent {
            agent.table.end(&uid, container);
        }
    }
}

fn attachment(container: &Container) -> Attachment {
    Attachment { container_id: container.clone(), ips: vec!["10.9.0.5".parse().unwrap()] }
}
