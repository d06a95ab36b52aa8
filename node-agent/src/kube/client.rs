//! The way to the API server, on which silence is no news.
//!
//! A watch is a connection on which nothing is said for minutes. When packets are dropped on its
//! way, neither end hears of it: what happens meanwhile is sent again by the API server after
//! pauses that double up to two minutes, and its last words may never come. So the kernel asks the
//! other end when it has been silent for a while (tcp(7), `SO_KEEPALIVE`), and a watch whose end
//! does not answer is begun anew.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// When the other end is asked, how often, and how many answers may be missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub before: Duration,
    pub between: Duration,
    pub unanswered: u32,
}

/// Half a minute until a dead watch is noticed, which is about what a kubelet takes. Asking costs
/// a packet of forty bytes.
pub(super) const SILENCE: Silence =
    Silence { before: Duration::from_secs(15), between: Duration::from_secs(5), unanswered: 3 };

/// A way that opens again is to be tried again soon: the kernel's own pauses grow.
const CONNECT: Duration = Duration::from_secs(10);

/// A client as [`Client::try_from`] makes it, that notices when the API server is not there any
/// more.
///
/// # Errors
/// What is wrong with the configuration.
pub(super) fn client(config: Config, silence: Silence) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // It says what it does not support.
        return Client::try_from(config);
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_keepalive(Some(silence.before));
    http.set_keepalive_interval(Some(silence.between));
    http.set_keepalive_retries(Some(silence.unanswered));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(http)?);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let retries = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retries)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use netns::Fence;

    use super::*;
    use crate::testing::{PATIENCE, ScratchPod};

    #[test]
    fn a_watch_ends_when_nothing_comes_through_any_more() {
        let pod = ScratchPod::new();
        let listener = pod.inside(|| TcpListener::bind("10.9.0.5:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let watch = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let second = Duration::from_secs(1);
                let silence = Silence { before: second, between: second, unanswered: 2 };
                let client = client(Config::new(url.parse().unwrap()), silence).unwrap();
                let request = http::Request::get("/api/v1/pods?watch=true").body(Vec::new());
                tokio::time::timeout(PATIENCE, client.request_text(request.unwrap())).await
            })
        };
        std::thread::scope(|scope| {
            // The pod's own worker is for what happens meanwhile.
            let worker = Fence::new(1).unwrap();
            let netns = pod.netns();
            let ended = scope.spawn(move || worker.run(&netns, watch).unwrap());
            let (mut far, _) = listener.accept().unwrap();
            assert!(far.read(&mut [0; 1024]).unwrap() > 0, "a request");
            far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            pod.run("nft add table inet cut");
            pod.run(
                "nft add chain inet cut input { type filter hook input priority 0; policy drop; }",
            );
            let ended = ended.join().unwrap().expect("an end in time");
            let error = ended.expect_err("nobody has ended it");
            let text = super::super::with_causes(&error);
            assert!(text.contains("timed out"), "{text}");
        });
    }
}
