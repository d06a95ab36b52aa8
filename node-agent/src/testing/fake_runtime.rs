//! A container runtime that knows sandboxes and runs none.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::pod_netns::messages::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxStatusRequest,
    PodSandboxStatusResponse, READY,
};

/// What the runtime does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Answers,
    /// Does not know filters: names every pod's sandboxes.
    NamesAll,
    /// Takes the question and says nothing.
    Hangs,
    Refuses,
}

#[derive(Clone, Debug)]
struct Sandbox {
    listed: PodSandbox,
    info: HashMap<String, String>,
}

/// What it knows, and how it is.
#[derive(Clone, Debug)]
struct Knows {
    sandboxes: Vec<Sandbox>,
    manner: Manner,
    asked: usize,
}

/// Gone when dropped.
pub struct FakeRuntime {
    knows: Arc<Mutex<Knows>>,
    task: JoinHandle<()>,
    path: PathBuf,
}

impl FakeRuntime {
    /// Listens at `path`.
    pub fn at(path: &Path) -> Self {
        let knows = Knows { sandboxes: Vec::new(), manner: Manner::Answers, asked: 0 };
        let knows = Arc::new(Mutex::new(knows));
        let listener = UnixListener::bind(path).unwrap();
        let service = Service(Arc::clone(&knows));
        let serve = Server::builder().add_service(service);
        let serve = serve.serve_with_incoming(UnixListenerStream::new(listener));
        let task = tokio::spawn(async move { serve.await.unwrap() });
        Self { knows, task, path: path.to_owned() }
    }

    /// A sandbox that runs, in the namespace at `netns`.
    pub fn run(&self, uid: &str, id: &str, created_at: i64, netns: &Path) {
        self.add(uid, id, READY, created_at, &info(netns).to_string());
    }

    /// Any sandbox, with any words about it.
    pub fn add(&self, uid: &str, id: &str, state: i32, created_at: i64, info: &str) {
        let labels = HashMap::from([("io.kubernetes.pod.uid".to_owned(), uid.to_owned())]);
        let listed = PodSandbox { id: id.to_owned(), state, created_at, labels };
        let info = HashMap::from([("info".to_owned(), info.to_owned())]);
        self.knows.lock().unwrap().sandboxes.push(Sandbox { listed, info });
    }

    pub fn behave(&self, manner: Manner) {
        self.knows.lock().unwrap().manner = manner;
    }

    /// Calls so far.
    pub fn asked(&self) -> usize {
        self.knows.lock().unwrap().asked
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// As containerd has it.
pub fn info(netns: &Path) -> Value {
    let namespaces = json!([{"type": "pid"}, {"type": "network", "path": netns}]);
    json!({
        "pid": 1, "processStatus": "running", "netNamespaceClosed": false,
        "runtimeSpec": {"ociVersion": "1.1.0", "linux": {"namespaces": namespaces}},
    })
}

#[derive(Clone)]
struct Service(Arc<Mutex<Knows>>);

impl NamedService for Service {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            match request.uri().path().rsplit('/').next() {
                Some("ListPodSandbox") => {
                    let answer = tower::service_fn(move |request| {
                        let service = service.clone();
                        async move { service.list(request).await }
                    });
                    Ok(Grpc::new(ProstCodec::default()).unary(answer, request).await)
                }
                Some("PodSandboxStatus") => {
                    let answer = tower::service_fn(move |request| {
                        let service = service.clone();
                        async move { service.status(&request) }
                    });
                    Ok(Grpc::new(ProstCodec::default()).unary(answer, request).await)
                }
                other => panic!("nobody should ask for {other:?}"),
            }
        })
    }
}

impl Service {
    async fn list(
        self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        let (manner, all) = {
            let mut knows = self.0.lock().unwrap();
            knows.asked += 1;
            (knows.manner, knows.sandboxes.clone())
        };
        let filter = request.into_inner().filter.expect("never all of them");
        let fits = |sandbox: &PodSandbox| {
            let labels = filter.label_selector.iter();
            labels.into_iter().all(|(key, value)| sandbox.labels.get(key) == Some(value))
        };
        let all = all.into_iter().map(|sandbox| sandbox.listed);
        let items = match manner {
            Manner::Answers => all.filter(fits).collect(),
            Manner::NamesAll => all.collect(),
            Manner::Hangs => std::future::pending().await,
            Manner::Refuses => return Err(Status::unimplemented("no such service")),
        };
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    fn status(
        &self,
        request: &Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let asked = request.get_ref();
        let mut knows = self.0.lock().unwrap();
        knows.asked += 1;
        let found = knows.sandboxes.iter().find(|it| it.listed.id == asked.pod_sandbox_id);
        let found = found.ok_or_else(|| Status::not_found("no such sandbox"))?;
        let info = if asked.verbose { found.info.clone() } else { HashMap::new() };
        Ok(Response::new(PodSandboxStatusResponse { info }))
    }
}
