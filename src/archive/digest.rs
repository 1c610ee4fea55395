//! SHA-256 of a stream, computed beside the reading of it.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};

/// A hash in the making, one segment behind at most.
pub struct Hash(JoinHandle<Sha256>);

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(tokio::spawn(async { Sha256::new() }))
    }

    /// Takes the next segment, when the one before has been hashed.
    ///
    /// # Errors
    /// When hashing broke down.
    pub async fn update(&mut self, segment: Bytes) -> std::io::Result<()> {
        let mut hash = (&mut self.0).await.map_err(std::io::Error::other)?;
        self.0 = spawn_blocking(move || {
            hash.update(&segment);
            hash
        });
        Ok(())
    }

    /// The hash of all segments.
    ///
    /// # Errors
    /// When hashing broke down.
    pub async fn finish(self) -> std::io::Result<[u8; 32]> {
        Ok(self
            .0
            .await
            .map_err(std::io::Error::other)?
            .finalize()
            .into())
    }
}
