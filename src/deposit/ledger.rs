//! What a job may have left in its store: remembered for a key that may not list.
//!
//! The lookup by prefix (`job::erase`) is what counts; this is what is known without it. It also
//! keeps the requests that may leave something alive when the job that made them is given up: a
//! request that is dropped half way may still take effect, and nobody would know.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::task::TaskTracker;

use crate::store::{ErrorKind, Result, StoreError, Upload};

/// The uploads that a job has begun, and the requests for more that are on their way.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    uploads: Arc<Mutex<Vec<Upload>>>,
    /// Keys of small objects that were put.
    objects: Arc<Mutex<Vec<String>>>,
    /// Whether an upload may have been begun by a request that got no answer.
    unanswered: Arc<AtomicBool>,
    requests: TaskTracker,
    abort: Arc<Mutex<Vec<AbortHandle>>>,
}

/// An upload that is being begun.
#[derive(Debug)]
pub struct Beginning(JoinHandle<Result<Upload>>);

impl Future for Beginning {
    type Output = Result<Upload>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|begun| {
            begun.unwrap_or_else(|error| {
                let why = format!("beginning an upload broke down: {error}");
                Err(StoreError::new(ErrorKind::Invalid, why))
            })
        })
    }
}

impl Ledger {
    /// Begins an upload by `request`, which goes on when the caller is gone.
    pub fn begin(
        &self,
        request: impl Future<Output = Result<Upload>> + Send + 'static,
    ) -> Beginning {
        let (uploads, unanswered) = (self.uploads.clone(), self.unanswered.clone());
        let begun = self.requests.spawn(async move {
            let upload = request.await.inspect_err(|error| {
                unanswered.fetch_or(error.unanswered(), Ordering::Relaxed);
            })?;
            uploads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(upload.clone());
            Ok(upload)
        });
        self.remember(begun.abort_handle());
        Beginning(begun)
    }

    /// An object is about to be put.
    pub fn put(&self, key: &str) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.push(key.to_owned());
    }

    /// An object was refused by an answer, or nobody was reached with it.
    pub fn refused(&self, key: &str) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|object| object != key);
    }

    /// Whether nothing can be in the store: nothing was ever accepted there, and no request is without
    /// an answer.
    pub fn is_blank(&self) -> bool {
        self.uploads().is_empty()
            && self.objects().is_empty()
            && !self.unanswered.load(Ordering::Relaxed)
    }

    /// The objects that were about to be put.
    pub fn objects(&self) -> Vec<String> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.clone()
    }

    fn remember(&self, request: AbortHandle) {
        let mut requests = self.abort.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|request| !request.is_finished());
        requests.push(request);
    }

    /// Waits for the requests on their way, `at_most` so long, and then gives them up. Returns
    /// whether all of them ended by themselves.
    pub async fn settle(&self, at_most: Duration) -> bool {
        self.requests.close();
        let settled = tokio::time::timeout(at_most, self.requests.wait())
            .await
            .is_ok();
        for request in self
            .abort
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            request.abort();
        }
        settled
    }

    /// The uploads that were begun, completed ones too.
    pub fn uploads(&self) -> Vec<Upload> {
        self.uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
