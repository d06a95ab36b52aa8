//! Whether probes work on this node at all: one connection to a captured pod of our own.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use capture::{Options, Ruleset};
use netns::{Dial, Listen, PodNetns, dial_socket, listen_tcp};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::HostProbes;
use super::cause::{Failure, Surroundings, explain};
use super::kernel::Kernel;
use super::links::LinkError;
use super::test_pod::{Family, TestPod, V4, V6};
use crate::facts::PodUid;
use crate::inside::inside;
use crate::rules::Rules;

/// How long the connection may take. Nothing is far away.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon a test that failed is made again: what was in the way may be gone.
const AGAIN: Duration = Duration::from_secs(60);
/// The port that the test pod declares for probes.
const PORT: u16 = 8080;
/// Under what troubles found here are known.
const SELF_TEST: &str = "self-test";

impl HostProbes {
    /// Tests until probes work, or `stop`. The outcome is logged, counted, and among
    /// [`HostProbes::troubles`]; nothing waits for it.
    pub async fn test(self, options: Options, stop: CancellationToken) {
        let (Some(kernel), Some(rules)) = (&self.inner.kernel, &self.inner.rules) else {
            return;
        };
        let until_passed = async {
            while let Err(reason) = self.test_once(kernel, rules, &options).await {
                tracing::error!("kubelet probes do not work on this node: {reason}");
                self.trouble(SELF_TEST, Some(format!("kubelet probes do not work: {reason}")));
                tokio::time::sleep(AGAIN).await;
            }
            tracing::info!("a probe of our own arrived un-proxied, from the probes' address");
            self.trouble(SELF_TEST, None);
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = until_passed => {}
        }
    }

    pub(super) async fn test_once(
        &self,
        kernel: &Kernel,
        rules: &Rules,
        options: &Options,
    ) -> Result<(), String> {
        let surroundings = inside(kernel.runner.fence(), &kernel.netns, Surroundings::look).await;
        let surroundings = surroundings.map_err(|error| format!("enter the node: {error}"))?;
        let families = if surroundings.v6 { &[V4, V6][..] } else { &[V4] };
        let not_made = |error: LinkError| format!("make a pod for the test: {error}");
        let pod = TestPod::make(&kernel.runner, &kernel.netns, families).await.map_err(not_made)?;
        let uid = PodUid(SELF_TEST.into());
        let ips: Vec<IpAddr> = families.iter().map(|family| family.pod).collect();
        self.exempt(&uid, &ips, &[PORT].into()).await;
        let result = self.probe_all(kernel, rules, options, &pod, families).await;
        self.release(&uid);
        pod.remove().await;
        result.map_err(|(family, failure)| explain(family, &failure, &surroundings))
    }

    async fn probe_all(
        &self,
        kernel: &Kernel,
        rules: &Rules,
        options: &Options,
        pod: &TestPod,
        families: &[Family],
    ) -> Result<(), (Family, Failure)> {
        let mut options = options.clone();
        options.probes.ports = [PORT].into();
        let document = capture::replace(&Ruleset::capture(&options));
        let first = families[0];
        let loaded = rules.load(&pod.netns, document).await;
        loaded.map_err(|error| (first, Failure::Setup(error.to_string())))?;
        let at = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listen = async |port| listen(kernel, &pod.netns, at(port)).await;
        let app = listen(PORT).await.map_err(|failure| (first, failure))?;
        let proxy = listen(options.ports.inbound_plain).await;
        let proxy = proxy.map_err(|failure| (first, failure))?;
        let mut outcome = Ok(());
        for &family in families {
            let probed = probe(kernel, family, &app, &proxy).await;
            self.inner.metrics.tested(family.name, probed.as_ref().map_err(drop).copied());
            outcome = outcome.and(probed.map_err(|failure| (family, failure)));
        }
        outcome
    }
}

/// One connection of the node to the pod; it must reach the application, from the address
/// of probes.
async fn probe(
    kernel: &Kernel,
    family: Family,
    app: &TcpListener,
    proxy: &TcpListener,
) -> Result<(), Failure> {
    let dialled = dial(kernel, SocketAddr::new(family.pod, PORT));
    let arrives = async {
        let (captured, accepted) = tokio::select! {
            accepted = app.accept() => (false, accepted),
            accepted = proxy.accept() => (true, accepted),
        };
        let from = accepted.map_err(|error| Failure::Setup(error.to_string()))?.1.ip();
        match from.to_canonical() {
            from if captured => Err(Failure::Captured(from)),
            from if from != family.marker => Err(Failure::Source(from)),
            _ => Ok(()),
        }
    };
    // The connection stands when both ends say so: the way back counts as well.
    let both = async { tokio::join!(arrives, dialled) };
    match tokio::time::timeout(PATIENCE, both).await {
        Ok((Ok(()), Ok(()))) => Ok(()),
        Ok((Err(failure), _)) => Err(failure),
        Ok((_, Err(error))) => Err(Failure::Dial(error)),
        Err(_) => Err(Failure::Silent),
    }
}

async fn dial(kernel: &Kernel, to: SocketAddr) -> io::Result<()> {
    let dial = Dial { to, mark: None, from: None };
    let socket = inside(kernel.runner.fence(), &kernel.netns, move || dial_socket(&dial)).await;
    let socket = socket.map_err(io::Error::other)??;
    TcpSocket::from_std_stream(socket.into()).connect(to).await.map(drop)
}

async fn listen(
    kernel: &Kernel,
    netns: &PodNetns,
    addr: SocketAddr,
) -> Result<TcpListener, Failure> {
    let listen = Listen { addr, backlog: 4, mark: None };
    let listener = inside(kernel.runner.fence(), netns, move || listen_tcp(&listen)).await;
    let failed = |error: String| Failure::Setup(format!("listen in the test's pod: {error}"));
    let listener = listener.map_err(|error| failed(error.to_string()))?;
    let listener = listener.and_then(TcpListener::from_std);
    listener.map_err(|error| failed(error.to_string()))
}
