//! The serving side.

use anyhow::Context;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::ending::Ending;

/// What to answer, and where. Without any port it waits idly.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Answer each line with who sent it, its number and the line.
    #[arg(long)]
    lines: Vec<u16>,
    /// Speak first: say to whom, then send back what comes.
    #[arg(long)]
    greet: Option<u16>,
    /// Answer HTTP and gRPC probes.
    #[arg(long)]
    http: Option<u16>,
    /// Send datagrams back.
    #[arg(long)]
    udp: Option<u16>,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // The first process of a container ignores signals that it does not ask for.
        let mut ending = Ending::watch().context("watch for signals")?;
        let mut lines = Vec::new();
        for port in self.lines {
            lines.push(lab::here::serve(port)?);
        }
        let http = self.http.map(lab::here::answer_probes).transpose()?;
        let _udp = self.udp.map(lab::here::echo_datagrams).transpose()?;
        let greeting = match self.greet {
            Some(port) => {
                let listener = TcpListener::from_std(lab::here::listen(port)?)?;
                Some(tokio::spawn(greet(listener)))
            }
            None => None,
        };
        println!("serving");
        let mut told = 0;
        loop {
            tokio::select! {
                _ = ending.asked() => break,
                // What is counted here is for readers of the log: seconds are near enough.
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {
                    if let Some(http) = &http {
                        let peers = http.peers();
                        peers.iter().skip(told).for_each(|peer| println!("probed from {peer}"));
                        told = peers.len();
                    }
                }
            }
        }
        if let Some(greeting) = greeting {
            greeting.abort();
        }
        Ok(())
    }
}

async fn greet(listener: TcpListener) {
    let mut talks = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        // A peer that breaks off is its own affair.
        talks.spawn(async move { send_back(stream, peer).await.ok() });
        while talks.try_join_next().is_some() {}
    }
}

async fn send_back(mut stream: TcpStream, peer: std::net::SocketAddr) -> std::io::Result<()> {
    let peer = std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port());
    stream.write_all(format!("{peer}\n").as_bytes()).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        match buffer.get(..length) {
            Some(bytes) if length > 0 => stream.write_all(bytes).await?,
            _ => return Ok(()),
        }
    }
}
