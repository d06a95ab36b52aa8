//! ztunnels that come and go in the worst moments, and whose answers come too late.

use std::sync::Arc;

use anyhow::Context;
use lab::{Asked, Pod, PodError, PoseError, PosedZtunnel, TryAgain, eventually};

use super::faults::part;
use super::hanging::while_stopped;
use super::odd_pods::known_pods;
use crate::observe::{self, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "ztunnel-dies-before-it-is-ready",
            "pods that start while a new ztunnel comes and dies are served by the old one",
            dies_early
        ),
        scenario!(
            "late-answers-let-nobody-in",
            "a ztunnel's answer that comes too late lets in neither its pod nor another",
            late_answers
        ),
    ]
}

/// When the new one dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Before it answers anything.
    AtHello,
    /// When it has been told of all pods that there were, before it says that it has them.
    AtTheEndOfTheSnapshot,
    /// When it has said that it serves the pod that starts.
    AfterTheNewPod,
}

async fn dies_early(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("premature").await?;
    let labelled = |name: String| in_namespace("premature", &name, 1).label(MODE_LABEL, "ambient");
    let first = world.pod(labelled("first".to_owned())).await?;
    observe::tunnelled(world, &first, &server).await?;
    for death in [Death::AtHello, Death::AtTheEndOfTheSnapshot, Death::AfterTheNewPod] {
        for round in 0..2 {
            let name = format!("{death:?}-{round}").to_lowercase();
            let posed = match death {
                // Before the pod comes, which could be among those that there were else.
                Death::AfterTheNewPod => taken_over(world).await?,
                Death::AtHello | Death::AtTheEndOfTheSnapshot => connected(world).await?,
            };
            let creation = world.pod(labelled(name.clone()));
            let (started, died) = tokio::join!(creation, die(world, posed, death, &name));
            died.with_context(|| format!("{death:?}"))?;
            served(world, &started?, &server).await?;
        }
        served(world, &first, &server).await?;
    }
    Ok(())
}

async fn die(
    world: &World,
    mut posed: PosedZtunnel,
    death: Death,
    name: &str,
) -> anyhow::Result<()> {
    let expected = async || {
        let what = "an ADD under way";
        eventually(what, world.patience, || async {
            let known = known_pods(world.lab.node(1)).await.ok()?;
            known.iter().any(|pod| pod == name).then_some(())
        })
        .await
    };
    match death {
        Death::AtHello => {
            posed.asked().await?;
            expected().await?;
        }
        Death::AtTheEndOfTheSnapshot => {
            while posed.asked().await? != Asked::ThatIsAll {
                posed.done().await?;
            }
            expected().await?;
        }
        Death::AfterTheNewPod => {
            let asked = posed.asked().await?;
            expect("the pod that starts", format!("{asked:?}"), |_| {
                matches!(asked, Asked::Serve(_))
            })?;
            posed.done().await?;
        }
    }
    Ok(())
}

/// Its ADD is over, so it is captured; and whatever happened, nothing goes out in clear text.
async fn served(world: &World, pod: &Arc<Pod>, server: &Arc<Pod>) -> anyhow::Result<()> {
    let rules = observe::residue(pod).await?;
    expect("rules as the pod starts", rules, |text| text.contains("redirect to :15001"))?;
    let through =
        until(world, "the tunnel", pod, server, |seen| seen.is_tunnelled() || seen.marker > 0);
    expect("never clear text", through.await?, |seen| seen.marker == 0)?;
    pod.check().await?;
    Ok(())
}

async fn late_answers(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("late").await?;
    let node = world.lab.node(1);
    let ztunnel = part(node.ztunnel())?;
    ztunnel.kill().await?;
    // The plugin waits longer than the agent waits for ztunnel: it is the agent that decides.
    let list = std::fs::read_to_string(node.conflist())?;
    let kind = "\"type\": \"sluice-cni\"";
    let patient = list.replace(kind, &format!("{kind}, \"timeoutSeconds\": 30"));
    expect("a plugin that can be told to wait", &patient, |patient| **patient != list)?;
    std::fs::write(node.conflist(), patient)?;
    let alone = Box::pin(answered_late(world)).await;
    std::fs::write(node.conflist(), list)?;

    ztunnel.start().await?;
    ztunnel.ready().await?;
    served(world, &alone?, &server).await?;
    // The same of a real one, which answers all that it was asked when it goes on.
    while_stopped(world, ztunnel, async {
        expect("CNI code 11", started(world, "stalled").await?.is_none(), |refused| *refused)
    })
    .await?;
    for name in ["next", "last"] {
        let pod = started(world, name).await?.context("a pod of a ztunnel that answers")?;
        served(world, &pod, &server).await?;
    }
    let known = known_pods(node).await?.join(" ");
    expect("none that was refused", known, |names| {
        !names.contains("unanswered") && !names.contains("stalled")
    })
}

/// Two pods at a time, and a ztunnel that leaves questions unanswered. Gives the one pod that was
/// let in.
async fn answered_late(world: &World) -> anyhow::Result<Arc<Pod>> {
    let mut slow = taken_over(world).await?;
    let asked = async {
        next_to_serve(&mut slow).await?;
        given_up(&mut slow).await
    };
    let (one, two, asked) =
        tokio::join!(started(world, "unanswered-one"), started(world, "unanswered-two"), asked);
    asked?;
    expect("code 11 for both", [one?, two?].iter().flatten().count(), |count| *count == 0)?;

    // The late answers come while the next one is asked about others, and answers one of them.
    let mut second = taken_over(world).await?;
    let answers = async {
        let asked = next_to_serve(&mut second).await?;
        for _ in 0..2 {
            // The agent may not even listen any more.
            let _ = slow.done().await;
        }
        second.done().await?;
        let other = next_to_serve(&mut second).await?;
        expect("a question about another", format!("{other:?}"), |_| other != asked)?;
        given_up(&mut second).await?;
        anyhow::Ok(asked)
    };
    let (one, two, answered) =
        tokio::join!(started(world, "either-one"), started(world, "either-two"), answers);
    let (started, answered) = ([one?, two?], answered?);
    let let_in: Vec<_> = started.into_iter().flatten().collect();
    let names: Vec<_> = let_in.iter().map(|pod| Asked::Serve(pod.uid().to_owned())).collect();
    expect(&format!("{answered:?} alone"), format!("{names:?}"), |_| names == [answered])?;
    let_in.into_iter().next().context("nobody was let in")
}

/// The next pod that is to be served. Pods that were refused before may be taken back first,
/// which is answered as it should be.
async fn next_to_serve(posed: &mut PosedZtunnel) -> anyhow::Result<Asked> {
    loop {
        match posed.asked().await? {
            asked @ Asked::Serve(_) => return Ok(asked),
            Asked::Keep(_) | Asked::Stop(_) | Asked::ThatIsAll => posed.done().await?,
        }
    }
}

/// Waits until the agent has ended the conversation, in which a question is open.
async fn given_up(posed: &mut PosedZtunnel) -> anyhow::Result<()> {
    match posed.asked().await {
        Err(PoseError::Closed | PoseError::Link(_)) => Ok(()),
        other => anyhow::bail!("the agent goes on without an answer: {other:?}"),
    }
}

/// Starts a labelled pod; `None` when it is to be tried again.
async fn started(world: &World, name: &str) -> anyhow::Result<Option<Arc<Pod>>> {
    let spec = in_namespace("late", name, 1).label(MODE_LABEL, "ambient");
    match world.pod(spec.try_again(TryAgain::Never)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(error) => match error.downcast_ref::<PodError>().and_then(PodError::cni_code) {
            Some(11) => Ok(None),
            _ => Err(error),
        },
    }
}

async fn connected(world: &World) -> anyhow::Result<PosedZtunnel> {
    Ok(PosedZtunnel::connect(world.lab.node(1).zds_socket(), world.patience).await?)
}

async fn taken_over(world: &World) -> anyhow::Result<PosedZtunnel> {
    let mut posed = connected(world).await?;
    posed.take_over().await?;
    Ok(posed)
}
