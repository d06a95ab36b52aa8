use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::testing::PATIENCE;

fn admin() -> Admin {
    Admin {
        readiness: Readiness::default(),
        registry: Arc::new(Registry::default()),
        reconciler: Arc::default(),
    }
}

/// Status line and body of one request.
async fn get(addr: SocketAddr, path: &str) -> (String, String) {
    let exchange = async {
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect(addr).await {
                break stream;
            }
            tokio::task::yield_now().await;
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer")
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn pages_name_what_the_agent_waits_for() {
    let (admin, addr, stop) = (admin(), free_address(), CancellationToken::new());
    let running = tokio::spawn(admin.clone().run(addr, stop.clone()));
    assert_eq!(get(addr, "/healthz").await, ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    let (status, body) = get(addr, "/readyz").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(body.lines().count(), 5);

    admin.readiness.fulfil(Condition::Lock);
    admin.readiness.fulfil(Condition::Kube);
    admin.readiness.fulfil(Condition::PluginSocket);
    admin.readiness.fulfil(Condition::Installed);
    let (_, body) = get(addr, "/readyz").await;
    assert_eq!(body, "waits for a ztunnel to connect and take the snapshot\n");
    admin.readiness.fulfil(Condition::Ztunnel);
    assert_eq!(get(addr, "/readyz").await.0, "HTTP/1.1 200 OK");
    admin.readiness.miss(Condition::Ztunnel);
    assert_eq!(get(addr, "/readyz").await.0, "HTTP/1.1 503 Service Unavailable");

    assert!(get(addr, "/metrics").await.1.ends_with("# EOF\n"));
    assert!(get(addr, "/state").await.1.contains("\"pods\": []"));
    assert_eq!(get(addr, "/other").await.0, "HTTP/1.1 404 Not Found");
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("stops").unwrap();
}

#[tokio::test]
async fn a_taken_port_is_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(admin().run(addr, stop.clone()));
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    drop(taken);
    assert_eq!(get(addr, "/healthz").await.0, "HTTP/1.1 200 OK");
    stop.cancel();
    running.await.unwrap();
}
