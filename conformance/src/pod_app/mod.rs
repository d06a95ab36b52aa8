//! What runs inside the pods of a cluster: `conformance app …`.
//!
//! ```text
//! serve   answers, each on a port of its own: lines, greetings, probes, datagrams
//! ask     opens connections and says in JSON what came of them
//! watch   looks at the node's interfaces and says in JSON what it saw
//! resolve looks a name up, over UDP or TCP
//! node    does something to the node, or counts what there is
//! marked  says a line over a connection with a mark
//! ```
//!
//! Commands that last end when their input is closed: whoever started one through the API
//! server and was killed leaves nothing behind.

mod ask;
mod marked;
mod node;
mod resolve;
mod serve;
mod watch;

use std::io::Read;

use clap::Subcommand;

pub(crate) use ask::Answers;
pub(crate) use marked::Said;
pub(crate) use node::{Content, Counts, Killed, Lists};
pub(crate) use resolve::Resolved;
pub(crate) use watch::Sighting;

/// A program for a test pod.
#[derive(Debug, Subcommand)]
pub(crate) enum App {
    /// Answer until asked to end.
    Serve(serve::Serve),
    /// Open connections, and say in JSON what came of them.
    Ask(ask::Ask),
    /// Watch the node's interfaces until the input is closed; needs `NET_RAW`.
    Watch(watch::Watch),
    /// Look up a name.
    Resolve(resolve::Resolve),
    /// Act on the node; needs its processes, and its files at `/host`.
    #[command(subcommand)]
    Node(node::Node),
    /// Say a line over a connection whose packets carry a mark.
    Marked(marked::Marked),
}

impl App {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Serve(serve) => serve.run().await,
            Self::Ask(ask) => ask.run().await,
            Self::Watch(watch) => watch.run().await,
            Self::Resolve(resolve) => resolve.run().await,
            Self::Node(node) => node.run().await,
            Self::Marked(marked) => marked.run().await,
        }
    }
}

/// Waits until nobody holds the other end of the input.
async fn input_closed() {
    let (closed, told) = tokio::sync::oneshot::channel();
    // A thread of its own: one that reads cannot be told to stop, and ends with the program.
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        // Whoever waited may have given up.
        let _ = closed.send(());
    });
    // Without such a thread nobody can end the command, so it ends at once.
    let _ = told.await;
}

/// Prints one line of JSON.
fn tell(what: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}
