//! The wire side of the session: packets to events and answers to packets.

use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use netns::{NetnsId, PodNetns};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use zds::link::{Link, LinkError, Packet};
use zds::{
    FEATURE_LISTENERS, FEATURE_LOOKUPS, GiveBack, GivenListener as Sent, Hello, Lookups, Version,
    WorkloadResponse, workload_response,
};

use super::event::{Event, Pod, Request};
use super::handle::Handover;
use crate::dns::Mode;
use crate::proxy::{Claim, GivenListener, Listeners, NameServer, PodProxy};

/// How long the agent may take to accept a connection or to read a packet.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);

/// What an error may take of a packet; protobuf needs a few bytes around it.
const ERROR_TEXT: usize = zds::MAX_MESSAGE - 16;

/// What a ztunnel with these settings announces. One without name servers must not be given
/// their sockets: lookups that nobody reads would wait instead of failing.
pub(super) fn features(handover: Handover, dns: Mode) -> u32 {
    match (handover, dns) {
        (Handover::Own, _) => 0,
        (Handover::Agent, Mode::Off) => FEATURE_LISTENERS,
        (Handover::Agent, Mode::Serve) => FEATURE_LISTENERS | FEATURE_LOOKUPS,
    }
}

/// Connects at the time `at` and says hello.
pub(super) async fn connect(
    socket: PathBuf,
    features: u32,
    at: Instant,
) -> Result<Link, LinkError> {
    sleep_until(at).await;
    let link = in_time("connect to the agent", Link::connect(&socket)).await?;
    let hello = zds::encode(&Hello { version: Version::V1.into(), features })?;
    in_time("send hello", link.send(&hello, &[])).await?;
    Ok(link)
}

/// The next packet; without a link there is never one.
pub(super) async fn receive(link: Option<&Link>) -> Result<Option<Packet>, LinkError> {
    match link {
        Some(link) => link.recv().await,
        None => pending().await,
    }
}

/// Answers the request in flight.
pub(super) async fn answer(link: &Link, result: Result<(), String>) -> Result<(), LinkError> {
    let bytes = zds::encode(&response(result))?;
    in_time("send an answer", link.send(&bytes, &[])).await
}

/// Answers the request in flight with what a pod is served on, as far as it was asked for.
pub(super) async fn give_back(
    link: &Link,
    proxy: &PodProxy,
    asked: GiveBack,
) -> Result<(), LinkError> {
    let mut listeners = proxy.listeners();
    listeners.retain(|listener| asked.takes(listener.at));
    let entries = listeners.iter().map(|listener| listener.at.entry()).collect();
    let netns = proxy.netns();
    let ack = zds::Ack { error: String::new(), listeners: entries, has_netns: netns.is_some() };
    let answer = WorkloadResponse { payload: Some(workload_response::Payload::Ack(ack)) };
    let sockets = listeners.iter().map(AsFd::as_fd);
    let fds: Vec<_> = netns.map(AsFd::as_fd).into_iter().chain(sockets).collect();
    in_time("give listeners back", link.send(&zds::encode(&answer)?, &fds)).await
}

/// Reads a request. `home` is ztunnel's own namespace, which no pod has.
pub(super) fn parse(packet: Packet, home: NetnsId) -> Event<PodNetns> {
    let request = match zds::decode_request(&packet.bytes, packet.fds) {
        Ok(zds::Request::Add { workload, netns, listeners, lookups, give_back }) => {
            let (uid, named) = (workload.uid.clone(), named(&workload));
            match pod(workload, netns, (listeners, lookups), give_back, home) {
                Ok(pod) => Request::Add(pod, give_back),
                Err(reason) => Request::BadAdd(uid, format!("{named}: {reason}")),
            }
        }
        Ok(zds::Request::Keep(uid, give_back)) => Request::Keep(uid, give_back),
        Ok(zds::Request::Del(uid)) => Request::Del(uid),
        Ok(zds::Request::SnapshotSent) => Request::SnapshotSent,
        Err(violation) => return Event::Malformed(violation.to_string()),
    };
    debug!(?request, "from the node agent");
    Event::Request(request)
}

fn pod(
    workload: zds::Workload,
    netns: OwnedFd,
    (given, lookups): (Vec<Sent>, Lookups),
    give_back: GiveBack,
    home: NetnsId,
) -> Result<Pod<PodNetns>, String> {
    let netns = PodNetns::from_fd(netns).map_err(|error| error.to_string())?;
    if netns.id() == home {
        return Err("that is ztunnel's own netns".to_owned());
    }
    let text = |error: crate::proxy::GivenError| error.to_string();
    let (of_lookups, of_proxy): (Vec<_>, Vec<_>) =
        given.into_iter().partition(|given| given.at.is_for_lookups());
    let listeners = match (of_proxy.is_empty(), give_back) {
        (false, _) => Listeners::Given(GivenListener::check(of_proxy, &netns).map_err(text)?),
        // Who can take listeners back is handed the ones that we bind.
        (true, GiveBack::Proxy | GiveBack::All) => Listeners::ToBind(Claim::AloneIfFree),
        (true, GiveBack::NotAsked | GiveBack::Lookups) => Listeners::ToBind(Claim::Shared),
    };
    let name_server = match (lookups, of_lookups.is_empty()) {
        (Lookups::Unspecified, _) => NameServer::AsConfigured,
        (Lookups::Direct, _) => NameServer::None,
        (Lookups::Redirected, true) => NameServer::On(Vec::new()),
        (Lookups::Redirected, false) => {
            NameServer::On(GivenListener::check_lookups(of_lookups, &netns).map_err(text)?)
        }
    };
    let (uid, info, id) = (workload.uid, workload.info, netns.id());
    Ok(Pod { uid, info, id, netns, listeners, name_server })
}

/// A pod as operators know it: by its names, and by its UID where the agent sent none.
fn named(workload: &zds::Workload) -> String {
    let zds::WorkloadInfo { namespace, name, .. } = &workload.info;
    format!("pod {namespace}/{name} ({})", workload.uid)
}

async fn in_time<T>(
    step: &'static str,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    timeout(AGENT_PATIENCE, work)
        .await
        .map_err(|_| LinkError::Io { step, source: std::io::ErrorKind::TimedOut.into() })?
}

fn response(result: Result<(), String>) -> WorkloadResponse {
    let mut error = result.err().unwrap_or_default();
    error.truncate(error.floor_char_boundary(ERROR_TEXT));
    let ack = zds::Ack { error, ..zds::Ack::default() };
    WorkloadResponse { payload: Some(workload_response::Payload::Ack(ack)) }
}
