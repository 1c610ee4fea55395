//! An S3 server in this process, on loopback, over the strict [`MemoryStore`]: for the demo, the
//! tests and the benches. Signatures are checked; faults can be scripted into it.

mod service;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::store::Limits;
use crate::store::memory::MemoryStore;

/// The only access key that the server knows.
pub const ACCESS_KEY: &str = "tapline-demo";
/// Its secret.
pub const SECRET_KEY: &str = "tapline-demo-secret";

/// What a scripted fault does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 SlowDown, and nothing happens.
    SlowDown,
    /// 403 AccessDenied, and nothing happens.
    Denied,
    /// The request is carried out, and the reply is a 500 all the same.
    ReplyLost,
    /// `AbortMultipartUpload` only: it succeeds, but a part was in flight and the upload is still
    /// there.
    PartInFlight,
}

/// Faults to come.
#[derive(Debug, Default)]
pub struct Faults {
    /// By operation (`UploadPart`, `CompleteMultipartUpload`, …): each request takes one, in order;
    /// `None` lets it pass.
    to_come: Mutex<HashMap<&'static str, VecDeque<Option<Fault>>>>,
    /// After so many bytes of an object's body the connection breaks; never when 0.
    cut_after: AtomicU64,
}

impl Faults {
    /// The next `times` requests of `operation` meet `fault`.
    pub fn add(&self, operation: &'static str, fault: Fault, times: usize) {
        self.script(operation, Some(fault), times);
    }

    /// The next `times` requests of `operation` meet no fault; what is added later comes after
    /// them.
    pub fn pass(&self, operation: &'static str, times: usize) {
        self.script(operation, None, times);
    }

    /// Forgets what was still to come for `operation`.
    pub fn clear(&self, operation: &str) {
        self.to_come
            .lock()
            .expect("no holder panics")
            .remove(operation);
    }

    fn script(&self, operation: &'static str, fault: Option<Fault>, times: usize) {
        let mut to_come = self.to_come.lock().expect("no holder panics");
        to_come
            .entry(operation)
            .or_default()
            .extend(std::iter::repeat_n(fault, times));
    }

    fn take(&self, operation: &str) -> Option<Fault> {
        self.to_come
            .lock()
            .expect("no holder panics")
            .get_mut(operation)?
            .pop_front()?
    }

    /// From now on every connection breaks when it has carried so many bytes of an object.
    pub fn cut_bodies_after(&self, bytes: u64) {
        self.cut_after.store(bytes, Ordering::Relaxed);
    }

    fn cut_after(&self) -> Option<u64> {
        Some(self.cut_after.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

/// A running server; it ends when dropped. Every bucket name is a bucket, and all share one state.
pub struct S3Server {
    address: SocketAddr,
    store: MemoryStore,
    faults: Arc<Faults>,
    _serving: AbortOnDropHandle<()>,
}

impl S3Server {
    /// Starts a server on a free port of 127.0.0.1. With `discard` it keeps of a part only size and
    /// checksum.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(discard: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let store = if discard {
            MemoryStore::discarding(Limits::S3)
        } else {
            MemoryStore::new(Limits::S3, Some(crate::store::ChecksumKind::Crc64Nvme))
        };
        let faults = Arc::<Faults>::default();
        let mut builder = S3ServiceBuilder::new(service::Service {
            store: store.clone(),
            faults: faults.clone(),
        });
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that goes away in the middle is the client's business.
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self {
            address,
            store,
            faults,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the server holds.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The faults to come.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}
