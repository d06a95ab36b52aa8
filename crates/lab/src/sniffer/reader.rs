//! The thread that reads, and the record that it writes.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use super::packet::{Frame, Packet, parse};
use super::socket::{MAX_FRAME, Tap};

/// What a record keeps at most while windows are open: payload bytes and packets.
const MAX_BYTES: usize = 256 << 20;
const MAX_PACKETS: usize = 1 << 20;

/// A point in the record, and the losses until then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    index: usize,
    pub kernel_drops: u64,
    pub bound_drops: u64,
}

/// A flag that is about to be sent.
pub(crate) struct ExpectedFlag {
    pub nonce: u64,
    pub position: oneshot::Receiver<Position>,
}

#[derive(Debug, Default)]
struct Record {
    packets: Vec<Arc<Packet>>,
    bytes: usize,
    windows: usize,
    kernel_drops: u64,
    bound_drops: u64,
    last_nonce: u64,
    flags: HashMap<u64, oneshot::Sender<Position>>,
}

/// Reads one tap until dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    record: Arc<Mutex<Record>>,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub fn start(tap: Tap) -> io::Result<Self> {
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::clone(&record);
        let read = move || read_all(&tap, &stopped, &shared);
        let thread = thread::Builder::new().name("sniffer".into()).spawn(read)?;
        Ok(Self { record, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on packets are recorded; to be paired with [`Reader::end`].
    pub fn begin(&self) {
        lock(&self.record).windows += 1;
    }

    /// When nobody looks any more, the record is emptied.
    pub fn end(&self) {
        let mut record = lock(&self.record);
        record.windows -= 1;
        if record.windows == 0 {
            record.packets = Vec::new();
            record.bytes = 0;
        }
    }

    pub fn expect_flag(&self) -> ExpectedFlag {
        let mut record = lock(&self.record);
        record.flags.retain(|_, waiting| !waiting.is_closed());
        record.last_nonce += 1;
        let nonce = record.last_nonce;
        let (sender, position) = oneshot::channel();
        record.flags.insert(nonce, sender);
        ExpectedFlag { nonce, position }
    }

    /// Keeps the reader from reading while `work` is done.
    #[cfg(test)]
    pub fn while_stalled(&self, work: impl FnOnce()) {
        let _record = lock(&self.record);
        work();
    }

    pub fn between(&self, start: Position, end: Position) -> Vec<Arc<Packet>> {
        lock(&self.record).packets.get(start.index..end.index).unwrap_or_default().to_vec()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The reader waits for the tap and for this end to close.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A reader that panicked has nothing more to tell.
            let _ = thread.join();
        }
    }
}

fn read_all(tap: &Tap, stopped: &UnixStream, record: &Mutex<Record>) {
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let mut events = [
            PollFd::new(tap.fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if events[1].any() != Some(false) {
            return;
        }
        if let Err(error) = read_ready(tap, &mut buffer, record)
            && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NetworkDown)
        {
            tracing::warn!(%error, "sniffer stopped");
            return;
        }
    }
}

fn read_ready(tap: &Tap, buffer: &mut [u8], record: &Mutex<Record>) -> io::Result<()> {
    loop {
        let read = tap.read(buffer)?;
        let mut record = lock(record);
        if let Some(drops) = read.drops {
            record.kernel_drops = u64::from(drops);
        }
        if read.cut {
            record.bound_drops += 1;
        }
        let Some(frame) = read.frame.and_then(|length| buffer.get(..length)) else {
            continue;
        };
        match parse(frame) {
            Frame::Flag(nonce) => record.flag(nonce),
            Frame::Ip(packet) => record.keep(packet),
            Frame::Else => {}
        }
    }
}

impl Record {
    fn flag(&mut self, nonce: u64) {
        if let Some(waiting) = self.flags.remove(&nonce) {
            let Self { kernel_drops, bound_drops, .. } = *self;
            let position = Position { index: self.packets.len(), kernel_drops, bound_drops };
            // Whoever waited may have given up.
            let _ = waiting.send(position);
        }
    }

    fn keep(&mut self, packet: Packet) {
        if self.windows == 0 {
            return;
        }
        if self.packets.len() == MAX_PACKETS || self.bytes + packet.payload.len() > MAX_BYTES {
            self.bound_drops += 1;
            return;
        }
        self.bytes += packet.payload.len();
        self.packets.push(Arc::new(packet));
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
