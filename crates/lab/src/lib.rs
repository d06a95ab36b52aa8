//! The lab: a whole mesh on one Linux machine, as root, without a cluster.
//!
//! ```text
//! Lab::start ─► hub and nodes (net) ─► Kubernetes API (kube_api), control (services)
//! start_mesh ─► node-agent and ztunnel on every node, as processes (part)
//! create_pod ─► objects, namespace, conflist executed as the specification says
//!               (kubelet, cni_runtime), status
//! pods talk (app) while sniffers look at the wire (sniffer)
//! teardown   ─► all in reverse, then a look at what is left (leftovers)
//! ```
//!
//! Everything lives below one folder, `/run/sluice-lab/<id>/`, and in network namespaces
//! named there. The host's namespace, rules and routes are never touched. A lab that was
//! killed is cleaned up by the next start, or by [`sweep()`].
//!
//! Real clusters are reached through `cluster`, which shares sniffers and apps with the rest.
//!
//! Nothing here judges the implementation under test: it only arranges and observes.

mod app;
pub mod cluster;
pub mod cni_runtime;
mod conf;
mod container;
mod errors;
mod ground;
mod health;
mod http_client;
mod kill_point;

mod inhabitant;
pub mod kube_api;
mod kube_client;
mod kubectl;
mod kubelet;
mod lab;
mod leftovers;
mod net;
mod node;
mod options;
mod other_users;
mod part;
mod patience;
mod place;
mod pod;
mod posed_ztunnel;
mod process;
mod sandbox;
mod services;
mod sniffer;
mod state;
mod sweep;

pub use app::{Answer, AppError, AppErrorKind, Conversation, Echo, End, Reply, Server, here};
pub use container::Container;
pub use errors::{LabError, MeshError};
pub use health::{HealthServer, Probe};
pub use http_client::HttpError;
pub use inhabitant::Inhabitant;
pub use kill_point::KillPoint;
pub use kube_client::{KubeClient, KubeError};
pub use kubectl::KubectlError;
pub use kubelet::{PodError, PodFailure};
pub use lab::Lab;
pub use leftovers::{Leftover, Leftovers};
pub use net::NetError;
pub use node::Node;
pub use options::{DEFAULT_ROOT, Family, Options, Subject};
pub use part::{Part, PartError};
pub use patience::{TimedOut, eventually, eventually_every};
pub use place::Place;
pub use pod::{Pod, PodSpec, TryAgain, Users};
pub use posed_ztunnel::{Asked, PoseError, PosedZtunnel};
pub use process::{ProcessError, Ran};
pub use services::ServicesError;
pub use sniffer::{NodeTap, Observation, Packet, SniffError, Sniffer, Transport, Window};
pub use sweep::{Running, Swept, others, sweep};
