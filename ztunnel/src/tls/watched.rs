//! A peer, and its stream that ends when its certificate is revoked.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use mesh::Identity;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::revocation::Revocation;
use crate::telemetry::Reporter;

/// Who is at the other end of a finished handshake.
#[derive(Debug)]
pub struct Peer {
    /// What its certificate says.
    pub identity: Identity,
    /// For how long that is proved.
    pub until: SystemTime,
    /// Kept only where certificates can be revoked.
    proof: Option<Proof>,
}

/// What a certificate proves.
#[derive(Debug)]
pub(super) struct Proved {
    pub(super) identity: Identity,
    pub(super) until: SystemTime,
}

#[derive(Debug)]
struct Proof {
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    revocation: Revocation,
    reporter: Reporter,
}

impl Peer {
    pub(super) fn new(
        Proved { identity, until }: Proved,
        chain: &[CertificateDer<'static>],
        roots: &Arc<RootCertStore>,
        revocation: &Revocation,
        reporter: Reporter,
    ) -> Self {
        let proof = revocation.changes().map(|_| Proof {
            chain: chain.to_vec(),
            roots: Arc::clone(roots),
            revocation: revocation.clone(),
            reporter,
        });
        if proof.is_some() && chain.is_empty() {
            revocation.count_untracked(reporter);
        }
        Self { identity, until, proof }
    }

    /// Returns when the peer's certificate is revoked; never, where none can be.
    pub async fn revoked(self) {
        let subscribed = self.proof.and_then(|proof| Some((proof.revocation.changes()?, proof)));
        let Some((mut changes, proof)) = subscribed else {
            return std::future::pending().await;
        };
        loop {
            if let Some(revoked) = proof.revocation.revoked(&proof.chain, &proof.roots) {
                proof.revocation.count_rejection(proof.reporter);
                tracing::warn!(peer = %self.identity, "open connection is cut: {revoked}");
                return;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The stream, cut as soon as the peer is revoked.
    pub fn watch<Io>(self, io: Io) -> Watched<Io> {
        let revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = match self.proof {
            Some(_) => Some(Box::pin(self.revoked())),
            None => None,
        };
        Watched { io, revoked }
    }
}

/// A stream that fails when its peer is revoked. Free where nothing can be revoked.
pub struct Watched<Io> {
    io: Io,
    revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<Io> std::fmt::Debug for Watched<Io> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("revocable", &self.revoked.is_some()).finish()
    }
}

impl<Io> Watched<Io> {
    /// Fails from the moment on at which the peer is revoked.
    fn trusted(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(revoked) = &mut self.revoked else { return Ok(()) };
        if revoked.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.revoked = Some(Box::pin(std::future::ready(())));
        let text = "the peer's certificate was revoked";
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, text))
    }
}

/// Both ways look: while a peer takes nothing, HTTP/2 waits for it and does not read.
impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.trusted(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.trusted(cx)?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.trusted(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.trusted(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
