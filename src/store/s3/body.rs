//! A part on its way: the buffers as an HTTP body that counts what has gone, and the watch that
//! ends a try whose bytes have stopped.
//!
//! The SDK's own read timeout begins with the request and ends with the reply's head, so a body
//! that takes longer than it could never arrive. Here only a standstill ends a try.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use tokio::time::Instant;

use super::Timeouts;
use crate::store::PartBody;

/// A buffer is handed over in pieces of this size, so that a slow connection is seen to move:
/// 64 KiB a minute, and what hyper holds (some 400 KiB), is far below any link worth its name.
const PIECE: usize = 64 << 10;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How far a try's body has come.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Moments>);

#[derive(Debug)]
struct Moments {
    /// When the last byte was taken, in milliseconds since the epoch.
    moved: AtomicU64,
    /// Bytes that are still to be taken.
    left: AtomicU64,
}

impl Progress {
    pub(super) fn of(length: u64) -> Self {
        Self(Arc::new(Moments {
            moved: AtomicU64::new(since_epoch()),
            left: AtomicU64::new(length),
        }))
    }

    fn moved(&self, left: u64) {
        self.0.left.store(left, Ordering::Relaxed);
        self.0.moved.store(since_epoch(), Ordering::Relaxed);
    }

    /// Returns, with the reason, when the try has come to a standstill.
    pub(super) async fn standstill(&self, timeouts: Timeouts) -> String {
        loop {
            let left = self.0.left.load(Ordering::Relaxed);
            let limit = if left > 0 {
                timeouts.stall
            } else {
                timeouts.reply
            };
            let moved = Duration::from_millis(self.0.moved.load(Ordering::Relaxed));
            let end = *EPOCH + moved + limit;
            if Instant::now() >= end {
                let seconds = limit.as_secs();
                return if left > 0 {
                    format!("not a byte was taken for {seconds} s, with {left} to go")
                } else {
                    format!("no reply came within {seconds} s after the last byte")
                };
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

fn since_epoch() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A part as an HTTP body: its buffers one after the other, of known length.
struct Buffers {
    next: std::vec::IntoIter<Bytes>,
    current: Bytes,
    left: u64,
    progress: Progress,
}

impl http_body::Body for Buffers {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        while self.current.is_empty() {
            match self.next.next() {
                Some(next) => self.current = next,
                None => return Poll::Ready(None),
            }
        }
        let length = self.current.len().min(PIECE);
        let piece = self.current.split_to(length);
        self.left -= length as u64;
        self.progress.moved(self.left);
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

pub(super) fn stream_of(body: PartBody, progress: Progress) -> ByteStream {
    ByteStream::new(SdkBody::retryable(move || {
        progress.moved(body.len());
        SdkBody::from_body_1_x(Buffers {
            next: body.buffers().to_vec().into_iter(),
            current: Bytes::new(),
            left: body.len(),
            progress: progress.clone(),
        })
    }))
}
