use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;

fn ask(to: SocketAddr, way: Way, bytes: usize) -> Ask {
    let line = "marker".to_owned();
    Ask {
        to,
        line,
        bytes,
        times: 1,
        way,
        until_closed: false,
        pause: 0,
        deadline: 20,
        strict: false,
    }
}

async fn outcome(ask: &Ask) -> Answers {
    let mut answers = Answers::default();
    answers.count(ask.once().await);
    answers
}

#[tokio::test]
async fn a_megabyte_goes_there_and_back_and_the_peer_is_seen() {
    let server = lab::here::serve(0).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    for way in [Way::Lines, Way::HalfClose] {
        let answers = outcome(&ask(to, way, 1_000_000)).await;
        assert_eq!((answers.answered, answers.failed()), (1, 0), "{answers}");
        assert_eq!(answers.peers, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = closed.local_addr().unwrap();
    let hang_up = tokio::spawn(async move { drop(closed.accept().await) });
    let answers = outcome(&ask(to, Way::Greeted, 0)).await;
    assert_eq!(answers.failed(), 1, "{answers}");
    hang_up.await.unwrap();
    let answers = outcome(&ask(to, Way::Lines, 0)).await;
    assert_eq!(answers.failures.get("refused"), Some(&1), "{answers}");
    assert!(answers.first_failure.is_some());
}

#[test]
fn answers_survive_the_way_through_the_api() {
    let mut answers = Answers::default();
    answers.count(Ok(Some([10, 0, 0, 1].into())));
    answers.count(Ok(Some([10, 0, 0, 1].into())));
    answers.count(Err(other(([10, 0, 0, 2], 80).into(), "strange")));
    let mut all = Answers::default();
    all.add(answers.clone());
    all.add(answers.clone());
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Answers>(&text).unwrap(), all);
    let told = "4 answered, the server saw 10.0.0.1, 2 other (talk to 10.0.0.2:80: strange)";
    assert_eq!(all.to_string(), told);
}
