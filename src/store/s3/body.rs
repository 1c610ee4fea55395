//! A part on its way: the buffers as an HTTP body that counts what has gone.
//!
//! The SDK's own read timeout begins with the request and ends with the reply's head, so a body
//! that takes longer than it could never arrive. Here only a standstill ends a try. A piece whose
//! turn by `max_upload_rate` has not come waits here, and that is no standstill.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use tokio::time::{Sleep, sleep_until};

use crate::store::PartBody;
use crate::store::pace::Paces;
use crate::store::progress::Progress;

/// A part as an HTTP body: its buffers one after the other, of known length.
struct Buffers {
    next: std::vec::IntoIter<Bytes>,
    current: Bytes,
    left: u64,
    progress: Progress,
    paces: Paces,
    /// A buffer is handed over in pieces of this size (64 KiB at most), so that a slow connection is
    /// seen to move: that a minute, and what hyper holds (some 400 KiB), is far below any link worth
    /// its name.
    piece: usize,
    /// Until the next piece's turn.
    wait: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Buffers {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        while self.current.is_empty() {
            match self.next.next() {
                Some(next) => self.current = next,
                None => return Poll::Ready(None),
            }
        }
        let length = self.current.len().min(self.piece);
        if self.wait.is_none()
            && let Some(turn) = self.paces.turn(length)
        {
            self.progress.moves_at(turn);
            self.wait = Some(Box::pin(sleep_until(turn)));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let piece = self.current.split_to(length);
        self.left -= length as u64;
        self.progress.moved_to(self.left);
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

pub(super) fn stream_of(body: PartBody, progress: Progress, paces: Paces) -> ByteStream {
    ByteStream::new(SdkBody::retryable(move || {
        progress.moved_to(body.len());
        SdkBody::from_body_1_x(Buffers {
            next: body.buffers().to_vec().into_iter(),
            current: Bytes::new(),
            left: body.len(),
            progress: progress.clone(),
            piece: paces.piece(),
            paces: paces.clone(),
            wait: None,
        })
    }))
}
