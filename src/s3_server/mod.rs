//! An S3 server in this process, on loopback, over the strict [`MemoryStore`]: for the demo, the
//! tests and the benches. Signatures are checked. Everything that a network and a server can do to
//! a request can be scripted ([`fault`]), and what was asked is logged ([`request`]).
//!
//! ```text
//! socket ─▶ link ──▶ http ─────────────▶ service ─▶ MemoryStore
//!           (speed)  (log, faults)       (S3's operations)
//! ```

pub mod fault;
mod http;
pub mod link;
pub mod request;
mod service;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::store::Limits;
use crate::store::memory::MemoryStore;

pub use fault::{Fault, Faults};
pub use link::Link;
pub use request::{Asked, Log, Op};

/// The only access key that the server knows.
pub const ACCESS_KEY: &str = "tapline-demo";
/// Its secret.
pub const SECRET_KEY: &str = "tapline-demo-secret";

/// A running server; it ends when dropped. Every bucket name is a bucket, and all share one state.
pub struct S3Server {
    address: SocketAddr,
    front: http::Front,
    _serving: AbortOnDropHandle<()>,
}

impl S3Server {
    /// Starts a server on a free port of 127.0.0.1. With `discard` it keeps of a part only size and
    /// checksum.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(discard: bool) -> io::Result<Self> {
        let store = if discard {
            MemoryStore::discarding(Limits::S3)
        } else {
            MemoryStore::new(Limits::S3, Some(crate::store::ChecksumKind::Crc64Nvme))
        };
        Self::serving(store).await
    }

    /// Starts a server of what `store` holds, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn serving(store: MemoryStore) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let front = http::Front {
            store,
            s3: operations,
            faults: Arc::default(),
            log: Arc::default(),
            link: Arc::default(),
        };
        let serving = tokio::spawn(serve(listener, front.clone()));
        Ok(Self {
            address,
            front,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the server holds.
    pub fn store(&self) -> &MemoryStore {
        &self.front.store
    }

    /// What is to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.front.faults
    }

    /// What was asked.
    pub fn log(&self) -> &Log {
        &self.front.log
    }

    /// The network to it.
    pub fn link(&self) -> &Link {
        &self.front.link
    }
}

fn operations(store: MemoryStore) -> S3Service {
    let mut builder = S3ServiceBuilder::new(service::Service { store });
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    builder.build()
}

async fn serve(listener: TcpListener, front: http::Front) {
    // One connection that cannot be accepted, for want of files perhaps, does not end the others.
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let connection = TokioIo::new(front.link.connect(socket));
        let front = front.clone();
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(|request| front.clone().answer(request));
            let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that goes away in the middle is the client's business.
            let _ = http.serve_connection(connection, answer).await;
        });
    }
}
