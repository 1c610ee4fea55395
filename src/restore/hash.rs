//! SHA-256 of what is decoded, beside the decoding: on a thread of its own where there is much of it.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use crate::archive::hex;

/// From this size on, in bytes, it is worth a thread.
const LARGE: u64 = 4 << 20;
/// Pieces on their way to it.
const ON_THE_WAY: usize = 16;

/// A hash that is being computed.
pub(super) enum Hash {
    Here(Context),
    Beside(SyncSender<Bytes>, JoinHandle<Context>),
}

impl Hash {
    /// Of so many bytes.
    pub(super) fn of(size: u64) -> Self {
        let context = Context::new(&SHA256);
        if size < LARGE {
            return Self::Here(context);
        }
        let (sender, pieces) = sync_channel::<Bytes>(ON_THE_WAY);
        let mut beside = context.clone();
        let thread = thread::Builder::new().name("hash".into()).spawn(move || {
            while let Ok(piece) = pieces.recv() {
                beside.update(&piece);
            }
            beside
        });
        match thread {
            Ok(thread) => Self::Beside(sender, thread),
            Err(_) => Self::Here(context),
        }
    }

    /// The next bytes.
    pub(super) fn update(&mut self, piece: &Bytes) {
        match self {
            Self::Here(context) => context.update(piece),
            // One that has broken down is found out in the end.
            Self::Beside(pieces, _) => drop(pieces.send(piece.clone())),
        }
    }

    /// The hash of all of them.
    ///
    /// # Errors
    /// When its thread has broken down.
    pub(super) fn finish(self) -> io::Result<String> {
        let context = match self {
            Self::Here(context) => context,
            Self::Beside(pieces, thread) => {
                drop(pieces);
                let broken = |_| io::Error::other("the thread that hashes broke down");
                thread.join().map_err(broken)?
            }
        };
        Ok(hex(context.finish().as_ref()))
    }
}
