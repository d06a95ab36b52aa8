//! Looks at what really crosses an interface.
//!
//! ```text
//! packet socket ─► reader thread ─► record (only while a window is open)
//!                                      window(): flag frame ─► start
//!                                      close():  flag frame ─► end ─► Observation
//! ```
//!
//! A flag is a frame of our own, sent out of the same interface. When the reader has
//! seen it, it has seen all that the interface carried before, so nobody needs to sleep.
//! An exchange that was answered across the interface is certainly in the window. A
//! sniffer that lost packets fails the observation: "seen 0 times" must mean it.

mod node_tap;
mod observation;
mod packet;
mod reader;
mod socket;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use netns::FenceError;

pub use node_tap::NodeTap;
pub use observation::Observation;
pub use packet::{Packet, Transport};

use crate::place::Place;
use reader::{Position, Reader};
use socket::Flagger;

/// A flag may be lost like any frame; then it is sent again after this.
const FLAG_INTERVAL: Duration = Duration::from_millis(200);

/// Why there is no observation.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// The interface cannot be listened on.
    #[error("sniff {interface} of {place}: {source}")]
    Open {
        /// Whose namespace.
        place: String,
        /// Which interface.
        interface: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error("sniff in {place}: {source}")]
    Fence {
        /// Whose namespace.
        place: String,
        /// What the fence said.
        source: FenceError,
    },
    /// A flag frame did not come round.
    #[error("sniffer of {interface}: the flag frame was not seen within {patience:?}")]
    NoFlag {
        /// Which interface.
        interface: String,
        /// How long was waited.
        patience: Duration,
    },
    /// The flag could not be sent, most often because the interface is down.
    #[error("sniffer of {interface}: send the flag frame: {source}")]
    Flag {
        /// Which interface.
        interface: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Packets are missing from the observation, so it says nothing.
    #[error(
        "sniffer of {interface} lost packets: {by_kernel} by the kernel, {by_bound} over the bound"
    )]
    Dropped {
        /// Which interface.
        interface: String,
        /// Not delivered by the kernel, because the socket's buffer was full.
        by_kernel: u64,
        /// Not kept, because the record was full.
        by_bound: u64,
    },
}

/// Listens on one interface until dropped.
#[derive(Debug)]
pub struct Sniffer {
    interface: String,
    patience: Duration,
    reader: Arc<Reader>,
    flagger: Arc<Flagger>,
}

/// A stretch of time during which packets are recorded.
#[derive(Debug)]
pub struct Window {
    interface: String,
    patience: Duration,
    reader: Arc<Reader>,
    flagger: Arc<Flagger>,
    start: Position,
}

impl Sniffer {
    pub(crate) async fn open(place: &Place, interface: &str) -> Result<Self, SniffError> {
        Self::open_with(place, interface, socket::RECEIVE_BUFFER).await
    }

    async fn open_with(
        place: &Place,
        interface: &str,
        receive_buffer: usize,
    ) -> Result<Self, SniffError> {
        let failed = |source| SniffError::Open {
            place: place.name().to_owned(),
            interface: interface.to_owned(),
            source,
        };
        let name = interface.to_owned();
        let opened = place.inside(move || socket::open(&name, receive_buffer)).await;
        let opened = opened
            .map_err(|source| SniffError::Fence { place: place.name().to_owned(), source })?;
        let (tap, flagger) = opened.map_err(failed)?;
        Ok(Self {
            interface: interface.to_owned(),
            patience: place.patience(),
            reader: Arc::new(Reader::start(tap).map_err(failed)?),
            flagger: Arc::new(flagger),
        })
    }

    /// Starts recording. What crossed the interface before is not part of it.
    ///
    /// # Errors
    /// [`SniffError::Flag`] or [`SniffError::NoFlag`].
    pub async fn window(&self) -> Result<Window, SniffError> {
        self.reader.begin();
        let mut window = Window {
            interface: self.interface.clone(),
            patience: self.patience,
            reader: Arc::clone(&self.reader),
            flagger: Arc::clone(&self.flagger),
            start: Position::default(),
        };
        window.start = window.flag().await?;
        Ok(window)
    }
}

impl Window {
    /// Ends the recording once all that crossed the interface until now was seen.
    ///
    /// # Errors
    /// [`SniffError::Dropped`] when anything is missing from it.
    pub async fn close(self) -> Result<Observation, SniffError> {
        let end = self.flag().await?;
        let by_kernel = end.kernel_drops - self.start.kernel_drops;
        let by_bound = end.bound_drops - self.start.bound_drops;
        if by_kernel + by_bound > 0 {
            let interface = self.interface.clone();
            return Err(SniffError::Dropped { interface, by_kernel, by_bound });
        }
        Ok(Observation::new(self.reader.between(self.start, end)))
    }

    async fn flag(&self) -> Result<Position, SniffError> {
        let seen = self.reader.expect_flag();
        let send = async {
            loop {
                if let Err(source) = self.flagger.send(seen.nonce) {
                    return SniffError::Flag { interface: self.interface.clone(), source };
                }
                tokio::time::sleep(FLAG_INTERVAL).await;
            }
        };
        let limited = tokio::time::timeout(self.patience, seen.position);
        tokio::select! {
            failure = send => Err(failure),
            seen = limited => match seen {
                Ok(Ok(position)) => Ok(position),
                _ => Err(SniffError::NoFlag {
                    interface: self.interface.clone(),
                    patience: self.patience,
                }),
            },
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.reader.end();
    }
}

#[cfg(test)]
mod tests {
    use netns::{Fence, NamedNetns};

    use super::*;
    use crate::net::links::Links;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sniffer_that_lost_packets_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("netns");
        let named = NamedNetns::create(&mounted, "scratch").unwrap();
        let fence = Fence::new(1).unwrap();
        let place = Place::new("scratch", &named, &fence, Duration::from_secs(10));
        Links::open(&place).await.unwrap().up("lo").await.unwrap();

        let sniffer = Sniffer::open_with(&place, "lo", 16 << 10).await.unwrap();
        let window = sniffer.window().await.unwrap();
        sniffer.reader.while_stalled(|| {
            for _ in 0..1000 {
                sniffer.flagger.send(0).unwrap();
            }
        });
        let error = window.close().await.unwrap_err();
        assert!(
            matches!(error, SniffError::Dropped { by_kernel: 1.., by_bound: 0, .. }),
            "{error}"
        );

        let window = sniffer.window().await.unwrap();
        assert_eq!(window.close().await.unwrap().packets().len(), 0, "the next one is sound again");
        drop(named);
        nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}
