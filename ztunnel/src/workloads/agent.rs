//! The wire side of the session: packets to events and answers to packets.

use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use netns::{NetnsId, PodNetns};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use zds::link::{Link, LinkError, Packet};
use zds::{Hello, Version, WorkloadResponse, workload_response};

use super::event::{Event, Pod, Request};

/// How long the agent may take to accept a connection or to read a packet.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);

/// What an error may take of a packet; protobuf needs a few bytes around it.
const ERROR_TEXT: usize = zds::MAX_MESSAGE - 16;

/// Connects at the time `at` and says hello.
pub(super) async fn connect(socket: PathBuf, at: Instant) -> Result<Link, LinkError> {
    sleep_until(at).await;
    let link = in_time("connect to the agent", Link::connect(&socket)).await?;
    let hello = zds::encode(&Hello { version: Version::V1.into() })?;
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

/// Reads a request. `home` is ztunnel's own namespace, which no pod has.
pub(super) fn parse(packet: Packet, home: NetnsId) -> Event<PodNetns> {
    let request = match zds::decode_request(&packet.bytes, packet.fds) {
        Ok(zds::Request::Add(workload, fd)) => match PodNetns::from_fd(fd) {
            Ok(netns) if netns.id() == home => {
                let text = format!("{}: that is ztunnel's own netns", named(&workload));
                Request::BadAdd(workload.uid, text)
            }
            Ok(netns) => {
                Request::Add(Pod { uid: workload.uid, info: workload.info, id: netns.id(), netns })
            }
            Err(error) => {
                let text = format!("{}: {error}", named(&workload));
                Request::BadAdd(workload.uid, text)
            }
        },
        Ok(zds::Request::Keep(uid)) => Request::Keep(uid),
        Ok(zds::Request::Del(uid)) => Request::Del(uid),
        Ok(zds::Request::SnapshotSent) => Request::SnapshotSent,
        Err(violation) => return Event::Malformed(violation.to_string()),
    };
    debug!(?request, "from the node agent");
    Event::Request(request)
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
    let ack = zds::Ack { error };
    WorkloadResponse { payload: Some(workload_response::Payload::Ack(ack)) }
}
