//! What all our TCP connections have in common.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Settings of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Probes of idle connections; `None` sends none.
    pub keepalive: Option<Keepalive>,
    /// Whether bytes that nobody acknowledges end a connection.
    pub user_timeout: UserTimeout,
}

/// When an idle connection is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// How many may stay unanswered.
    pub retries: u32,
}

/// What ends a connection whose other end does not acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserTimeout {
    /// The kernel's retransmissions, some quarter of an hour.
    Kernel,
    /// The time after which keep-alive would give up an idle connection, so that both
    /// kinds of silence last equally long.
    AsKeepalive,
}

impl Default for Keepalive {
    fn default() -> Self {
        let three_minutes = Duration::from_secs(180);
        Self { time: three_minutes, interval: three_minutes, retries: 9 }
    }
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self { keepalive: Some(Keepalive::default()), user_timeout: UserTimeout::Kernel }
    }
}

impl TcpSettings {
    /// Applies them, and sends small writes at once.
    pub(super) fn apply(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let Some(Keepalive { time, interval, retries }) = self.keepalive else {
            return Ok(());
        };
        let socket = SockRef::from(tcp);
        let keepalive =
            TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
        socket.set_tcp_keepalive(&keepalive)?;
        match self.user_timeout {
            UserTimeout::Kernel => Ok(()),
            UserTimeout::AsKeepalive => {
                socket.set_tcp_user_timeout(Some(time + interval * retries))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_as_the_settings_say() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { time: seconds(10), interval: seconds(5), retries: 3 };
        let settings =
            TcpSettings { keepalive: Some(keepalive), user_timeout: UserTimeout::AsKeepalive };
        let tcp = TcpStream::connect(addr).await.unwrap();
        settings.apply(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(10));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(5));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(25)));
        let quiet = TcpStream::connect(addr).await.unwrap();
        TcpSettings { keepalive: None, ..settings }.apply(&quiet).unwrap();
        assert!(!SockRef::from(&quiet).keepalive().unwrap());
        assert!(quiet.nodelay().unwrap());
    }
}
