//! Ports, marks and paths that agent, ztunnel and users' firewalls rely on. They are API.

/// In-pod and node ports of ztunnel. Istio ambient uses the same.
pub mod port {
    /// In-pod listener for connections that the pod's applications open.
    pub const OUTBOUND: u16 = 15001;
    /// In-pod listener for plaintext connections that arrive at the pod.
    pub const INBOUND_PLAIN: u16 = 15006;
    /// In-pod listener for HBONE tunnels; reached directly, never by redirection.
    pub const INBOUND_HBONE: u16 = 15008;
    /// In-pod listener for DNS.
    pub const DNS: u16 = 15053;
    /// Administration, on the loopback address of ztunnel's own namespace.
    pub const ADMIN: u16 = 15000;
    /// Prometheus metrics.
    pub const METRICS: u16 = 15020;
    /// Readiness.
    pub const READY: u16 = 15021;
}

/// The in-pod ports that only redirected connections may reach. Nobody dials them
/// on purpose: a request that names one is refused.
pub const PROXY_PORTS: [u16; 4] =
    [port::OUTBOUND, port::INBOUND_PLAIN, port::INBOUND_HBONE, port::DNS];

/// A packet or connection mark and the bits of it that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The value within the mask.
    pub value: u32,
    /// The bits that belong to us; all others belong to whoever set them.
    pub mask: u32,
}

/// Carried by every packet of the sockets that ztunnel opens inside a pod.
pub const PACKET_MARK: Mark = Mark { value: 0x539, mask: 0xfff };

/// Connection mark of what ztunnel dialled inside the pod; the application's answers
/// get it as packet mark and are routed back to ztunnel.
pub const CONNMARK: Mark = Mark { value: 0x111, mask: 0xfff };

/// The policy route that keeps a client's source address towards the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRoute {
    /// Routing table that holds `local default dev lo`.
    pub table: u32,
    /// Preference of the rule that looks the table up for [`CONNMARK`].
    pub preference: u32,
}

/// Ours differs from Istio's (table 100, preference 32764) so that it collides neither
/// with theirs nor with the `sbr` plugin, which counts tables from 100.
pub const ROUTE: PolicyRoute = PolicyRoute { table: 1337, preference: 13 };

/// Where ztunnel looks for the agent unless `INPOD_UDS` says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/ztunnel/ztunnel.sock";
