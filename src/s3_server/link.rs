//! The network between a client and the server: how fast it is, and how far away.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What the kernel may take from a client ahead of a slow server, in bytes. The kernel's own choice
/// grows to megabytes, which would let a whole part pass at once.
const RECEIVE_BUFFER: usize = 64 << 10;
/// A slow connection moves its bytes in steps, one in so much time.
const STEP: Duration = Duration::from_millis(50);

/// The network's properties; what is set holds for connections that are made later.
#[derive(Debug, Default)]
pub struct Link {
    bytes_per_second: AtomicU64,
    latency_ms: AtomicU64,
}

impl Link {
    /// Every connection carries so much in each direction.
    pub fn slow(&self, bytes_per_second: u64) {
        self.bytes_per_second
            .store(bytes_per_second, Ordering::Relaxed);
    }

    /// Every request arrives so much later.
    pub fn far(&self, latency: Duration) {
        let millis = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self.latency_ms.store(millis, Ordering::Relaxed);
    }

    pub(super) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms.load(Ordering::Relaxed))
    }

    pub(super) fn connect(&self, socket: TcpStream) -> Connection {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate > 0 {
            // Without it the connection is less slow, not wrong.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, RECEIVE_BUFFER);
        }
        Connection {
            socket,
            read: Pace::new(rate),
            write: Pace::new(rate),
        }
    }
}

/// One direction of a connection.
struct Pace {
    /// Bytes per step; 0 is without limit.
    step: usize,
    until: Pin<Box<Sleep>>,
}

impl Pace {
    fn new(rate: u64) -> Self {
        let step = if rate == 0 { 0 } else { (rate / 20).max(1) };
        Self {
            step: usize::try_from(step).unwrap_or(usize::MAX),
            until: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// How many bytes may move now; waits when that is none.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        if self.step == 0 {
            return Poll::Ready(usize::MAX);
        }
        ready!(self.until.as_mut().poll(context));
        Poll::Ready(self.step)
    }

    fn moved(&mut self, bytes: usize) {
        if self.step > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a time to wait")]
            let steps = bytes as f64 / self.step as f64;
            let wait = STEP.mul_f64(steps);
            self.until.as_mut().reset(Instant::now() + wait);
        }
    }
}

pub(super) struct Connection {
    socket: TcpStream,
    read: Pace,
    write: Pace,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = ready!(self.read.poll(context)).min(into.remaining());
        let mut some = ReadBuf::new(into.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut some))?;
        let read = some.filled().len();
        into.advance(read);
        self.read.moved(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = ready!(self.write.poll(context)).min(bytes.len());
        let wrote = ready!(Pin::new(&mut self.socket).poll_write(context, &bytes[..most]))?;
        self.write.moved(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
