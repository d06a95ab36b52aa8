use mesh::proto::workload::Workload;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::facts::Account;
use crate::world::Resource;

/// The other end of a stream whose client answers only when the test says so.
struct Other {
    worlds: watch::Sender<Option<Arc<World>>>,
    requests: mpsc::Sender<Result<DeltaDiscoveryRequest, Status>>,
    responses: mpsc::Receiver<Result<DeltaDiscoveryResponse, Status>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn open() -> Other {
    let (worlds, seen) = watch::channel(None);
    let (requests, inbox) = mpsc::channel(8);
    let (outbox, responses) = mpsc::channel(OUTBOX);
    let stop = CancellationToken::new();
    let caller = Caller {
        account: Account { namespace: "sluice-system".into(), name: "ztunnel".into() },
        pod: "ztunnel-1".into(),
        node: "n1".into(),
    };
    let session = Session { caller, worlds: seen, outbox, stop: stop.clone() };
    let task = tokio::spawn(session.run(ReceiverStream::new(inbox)));
    Other { worlds, requests, responses, stop, task }
}

impl Other {
    fn show(&self, addresses: &[&str]) {
        let mut world = World::default();
        for name in addresses {
            let message = Workload { name: (*name).into(), ..Default::default() };
            world.addresses.insert(name, Resource::new(&message));
        }
        self.worlds.send_replace(Some(Arc::new(world)));
    }

    async fn say(&self, nonce: &str) {
        let request = DeltaDiscoveryRequest {
            type_url: Kind::Address.url().into(),
            response_nonce: nonce.into(),
            ..Default::default()
        };
        self.requests.send(Ok(request)).await.unwrap();
    }

    async fn hear(&mut self) -> Result<Vec<String>, Code> {
        match self.responses.recv().await.expect("a message") {
            Ok(response) => Ok(response.resources.into_iter().map(|it| it.name).collect()),
            Err(status) => Err(status.code()),
        }
    }
}

// Time is paused in these tests: it runs ahead as soon as everybody waits.

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_world_is_known() {
    let mut other = open();
    other.say("").await;
    let silence = tokio::time::timeout(Duration::from_secs(600), other.responses.recv()).await;
    assert!(silence.is_err(), "{silence:?}");
    other.show(&["a"]);
    assert_eq!(other.hear().await.unwrap(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_is_dropped_and_costs_one_response() {
    let mut other = open();
    other.show(&["a"]);
    other.say("").await;
    assert_eq!(other.hear().await.unwrap(), ["a"]);
    for _ in 0..1000 {
        other.show(&["a", "b"]);
        tokio::task::yield_now().await;
    }
    assert!(other.responses.is_empty());
    assert_eq!(other.hear().await.unwrap_err(), Code::DeadlineExceeded);
    other.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_old_stream_is_ended_so_that_its_token_is_seen_again() {
    let mut other = open();
    other.show(&[]);
    other.say("").await;
    assert!(other.hear().await.unwrap().is_empty());
    other.say("1").await;
    let before = Instant::now();
    assert_eq!(other.hear().await.unwrap_err(), Code::DeadlineExceeded);
    assert!(before.elapsed() > AGE - ANSWER, "not for want of an answer");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_client_and_with_the_server() {
    let other = open();
    drop(other.responses);
    other.task.await.unwrap();
    let other = open();
    drop(other.requests);
    other.task.await.unwrap();
    let mut other = open();
    other.stop.cancel();
    assert_eq!(other.hear().await.unwrap_err(), Code::Unavailable);
    other.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_more_and_more_is_dropped() {
    let mut other = open();
    other.show(&[]);
    for part in 0..300 {
        let names = (0..1000).map(|number| format!("/{part}.{number}")).collect();
        let request = DeltaDiscoveryRequest {
            type_url: Kind::Address.url().into(),
            resource_names_subscribe: names,
            ..Default::default()
        };
        if other.requests.send(Ok(request)).await.is_err() {
            break;
        }
    }
    let end = loop {
        if let Err(code) = other.hear().await {
            break code;
        }
    };
    assert_eq!(end, Code::ResourceExhausted);
    other.task.await.unwrap();
}
