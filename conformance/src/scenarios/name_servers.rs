//! Name servers in odd places: at a link-local address of the node, and in captured pods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lab::{Place, eventually};
use serde_json::json;

use super::lookups::{DNS_CAPTURE, query};
use super::services::Service;
use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{MODE_LABEL, World, in_namespace};

/// Where node-local caches listen.
const NODE_LOCAL: &str = "169.254.20.10";
/// What the servers here answer a question for an address.
const ANSWER: [u8; 4] = [192, 0, 2, 53];
/// Types of records.
const A: u8 = 1;
const SRV: u8 = 33;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "node-local-name-server",
            "a name server at a link-local address of the node serves pods whose lookups are captured",
            node_local
        ),
        scenario!(
            "name-server-in-a-captured-pod",
            "a captured pod that is a name server answers others and itself",
            in_a_pod
        ),
    ]
}

async fn node_local(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1).place();
    let address = format!("{NODE_LOCAL}/32");
    let added = node.run(&["ip", "address", "add", &address, "dev", "lo"]).await?;
    expect("a link-local address", added.stderr, String::is_empty)?;
    let outcome = Box::pin(asks_the_node(world, node)).await;
    let removed = node.run(&["ip", "address", "del", &address, "dev", "lo"]).await?;
    outcome?;
    expect("the address removed", removed.stderr, String::is_empty)
}

async fn asks_the_node(world: &World, node: &Place) -> anyhow::Result<()> {
    let at: SocketAddr = (NODE_LOCAL.parse::<IpAddr>()?, 53).into();
    let server = node.answer_datagrams(at, answer).await?;
    let client = in_namespace("nodelocal", "client", 1).label(MODE_LABEL, "ambient");
    let client = world.pod(client.annotation(DNS_CAPTURE, "true")).await?;
    let service = Service::create(world, "nodelocal", json!({})).await?;
    let headless = json!({"clusterIP": "None"});
    let IpAddr::V4(own) = service.addresses[0] else { anyhow::bail!("an IPv4 service") };
    let shop = query("shop.nodelocal.svc.cluster.local", IpAddr::V4(own));
    let known = eventually("ztunnel's own answer", world.patience, || async {
        client.ask(at, &shop).await.ok().filter(|it| it.ends_with(&own.octets()))
    });
    known.await?;
    service.delete(world).await?;

    // What ztunnel does not know it asks whom the pod has asked.
    let outside = query("www.example.com", Ipv4Addr::UNSPECIFIED.into());
    let answered = client.ask(at, &outside).await?;
    expect("the node's answer", Bytes(answered), |Bytes(it)| it.ends_with(&ANSWER))?;
    // Of a headless service's names it knows the addresses, not the rest.
    let service = Service::create(world, "nodelocal", headless).await?;
    let name = "_http._tcp.shop.nodelocal.svc.cluster.local";
    let answered = client.ask(at, &of_type(query(name, Ipv4Addr::UNSPECIFIED.into()), SRV)).await?;
    expect("the node's answer about SRV", Bytes(answered), |Bytes(it)| it.ends_with(TARGET))?;
    service.delete(world).await?;
    drop(server);
    let unanswered = client.ask(at, &outside).await?;
    expect("a failure, when it is gone", Bytes(unanswered), |Bytes(it)| {
        it.get(3).is_some_and(|flags| flags & 0x0f == 2)
    })
}

async fn in_a_pod(world: &World) -> anyhow::Result<()> {
    let spec = |name, node| in_namespace("resolver", name, node).label(MODE_LABEL, "ambient");
    let server = world.pod(spec("server", 2).annotation(DNS_CAPTURE, "true")).await?;
    let everywhere: SocketAddr = (Ipv4Addr::UNSPECIFIED, 53).into();
    let _answering = server.place().answer_datagrams(everywhere, answer).await?;
    let _app = server.serve(crate::world::APP_PORT).await?;
    let question = query("www.example.com", Ipv4Addr::UNSPECIFIED.into());
    for (name, capture) in [("captured-lookups", "true"), ("plain-lookups", "false")] {
        let client = world.pod(spec(name, 1).annotation(DNS_CAPTURE, capture)).await?;
        observe::tunnelled(world, &client, &server).await?;
        let answered = client.ask(server.addr(53), &question).await?;
        expect("the pod's answer", Bytes(answered), |Bytes(it)| it.ends_with(&ANSWER))?;
    }
    let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 53).into();
    for at in [loopback, server.addr(53)] {
        // Its questions to itself never leave it: only a change of its own could be an answer.
        let answered = server.ask(at, &question).await?;
        expect("its own answer", Bytes(answered), |Bytes(it)| it.ends_with(&ANSWER))?;
    }
    Ok(())
}

/// The end of an answer about SRV: the name `a`.
const TARGET: &[u8] = &[1, b'a', 0];

/// As a name server answers: one record of the type that was asked for.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    let kind = question.len().checked_sub(3).map(|at| question[at]);
    if answer.len() < 12 {
        return answer;
    }
    // An answer, recursion available, no error; one record.
    (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
    // The name of the question, its type, class IN, 30 s.
    answer.extend([0xc0, 12, 0, kind.unwrap_or(A), 0, 1, 0, 0, 0, 30]);
    if kind == Some(SRV) {
        // Priority, weight, port 80, target.
        answer.extend([0, 9, 0, 1, 0, 1, 0, 80]);
        answer.extend(TARGET);
    } else {
        answer.extend([0, 4]);
        answer.extend(ANSWER);
    }
    answer
}

/// The question with another type.
fn of_type(mut question: Vec<u8>, kind: u8) -> Vec<u8> {
    let at = question.len() - 3;
    question[at] = kind;
    question
}

/// An answer, for reports.
struct Bytes(Vec<u8>);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.0)
    }
}
