//! Writing log lines without ever making the data path wait.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for a slow reader of our output before new ones are dropped.
const QUEUE: usize = 8192;

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answer when everything before this was written.
    Flush(SyncSender<()>),
}

/// Hands lines to a thread of its own; when that cannot keep up, lines are dropped and
/// counted.
#[derive(Clone, Debug)]
pub(super) struct LineWriter {
    queue: Sender<Message>,
    places: Places,
    dropped: Counter,
}

/// The bound of the queue. The library's bounded one takes memory for all its places at
/// once.
#[derive(Clone, Debug)]
struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
}

impl Places {
    fn take(&self) -> bool {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) < self.most;
        if !taken {
            self.give_back();
        }
        taken
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LineWriter {
    /// Starts the thread, which ends with the last clone of the writer.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_queue(output, QUEUE)
    }

    fn with_queue(output: impl Write + Send + 'static, length: usize) -> io::Result<Self> {
        let (queue, lines) = channel();
        let places = Places { taken: Arc::default(), most: length };
        let writer = Self { queue, places: places.clone(), dropped: Counter::default() };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(output, &lines, &places))?;
        Ok(writer)
    }

    /// Puts it into the queue, if there is a place.
    fn hand_over(&self, message: Message) -> bool {
        self.places.take() && self.queue.send(message).is_ok()
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> &Counter {
        &self.dropped
    }

    /// Waits until what was logged before is written, at most for `wait`: whoever reads
    /// our output may have stopped reading.
    pub(super) fn flush(&self, wait: Duration) {
        let (done, written) = sync_channel(1);
        if self.hand_over(Message::Flush(done)) {
            let _ = written.recv_timeout(wait);
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.hand_over(Message::Line(line.to_vec())) {
            self.dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_all(mut output: impl Write, lines: &Receiver<Message>, places: &Places) {
    for message in lines {
        places.give_back();
        match message {
            // An output that cannot be written to is no reason to stop carrying traffic.
            Message::Line(line) => {
                let _ = output.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = output.flush();
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that waits for permission before each write.
    struct Gated {
        permission: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permission.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_output_costs_lines_and_not_time() {
        let (permit, permission) = channel();
        let (written, lines) = channel();
        let mut writer = LineWriter::with_queue(Gated { permission, written }, 2).unwrap();
        for _ in 0..10 {
            writer.write_all(b"line\n").unwrap();
        }
        // One line is with the thread at most, two wait.
        assert!(writer.dropped().get() >= 7, "{} dropped", writer.dropped().get());
        drop(permit);
        assert_eq!(lines.recv_timeout(Duration::from_secs(5)).unwrap(), b"line\n");
    }

    #[test]
    fn flush_waits_for_earlier_lines() {
        let (permit, permission) = channel();
        let (written, lines) = channel();
        let mut writer = LineWriter::with_queue(Gated { permission, written }, 8).unwrap();
        writer.write_all(b"last words\n").unwrap();
        permit.send(()).unwrap();
        LineWriter::flush(&writer, Duration::from_secs(5));
        assert_eq!(lines.try_recv().unwrap(), b"last words\n");
    }

    #[test]
    fn a_full_pipe_costs_lines_and_not_time() {
        let (mut reader, pipe) = std::io::pipe().unwrap();
        let mut writer = LineWriter::start(pipe).unwrap();
        let line = [b'x'; 1000];
        let lines = 3 * QUEUE;
        for _ in 0..lines {
            writer.write_all(&line).unwrap();
        }
        // A pipe holds 64 KiB by default and a megabyte at most: a thousand lines.
        let dropped = usize::try_from(writer.dropped().get()).unwrap();
        assert!(dropped >= lines - QUEUE - 1100, "{dropped} of {lines} dropped");
        drop(writer);
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
        assert_eq!(read.len(), (lines - dropped) * line.len(), "what was taken was written");
    }
}
