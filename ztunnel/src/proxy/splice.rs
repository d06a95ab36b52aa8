//! Bytes between two sockets, in clear.

use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;

const CHUNK: usize = 64 << 10;

/// Moves bytes both ways until both ends have finished, each direction on its own.
/// `toward` hears of bytes from `from` to `to`, `back` of the others. On an error, and
/// when the future is dropped, the caller resets both.
pub(super) async fn splice(
    from: &TcpStream,
    to: &TcpStream,
    toward: impl Fn(u64),
    back: impl Fn(u64),
) -> io::Result<()> {
    tokio::try_join!(one_way(from, to, toward), one_way(to, from, back))?;
    Ok(())
}

/// Holds no buffer while there is nothing to read.
async fn one_way(from: &TcpStream, to: &TcpStream, moved: impl Fn(u64)) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            tokio::task::consume_budget().await;
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => return shutdown(to),
                Ok(bytes) => {
                    write_all(to, &buffer).await?;
                    moved(bytes as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes all of it.
pub(super) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn shutdown(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}
