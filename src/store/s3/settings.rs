//! What a bucket and its server need to be told.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use super::profile::Profile;
use crate::store::progress::Timeouts;
use crate::store::{ChecksumKind, Limits};

/// How an object is kept from being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    pub mode: LockMode,
    /// From when it is stored.
    pub days: u32,
}

/// Whom a lock keeps from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Everybody without a permission of its own.
    Governance,
    /// Everybody.
    Compliance,
}

/// A bucket, a prefix in it, and the server that has it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    pub bucket: String,
    /// With no slash at either end; may be empty.
    pub prefix: String,
    /// Endpoint URL; by the AWS environment (`AWS_ENDPOINT_URL`), then AWS itself, when absent.
    pub endpoint: Option<String>,
    /// Who has the server; by the endpoint's host name, or by what it answers, when absent.
    pub provider: Option<&'static Profile>,
    /// Region; by the standard AWS chain when absent.
    pub region: Option<String>,
    /// Bucket in the path rather than in the host name; when absent, wherever there is an endpoint.
    pub path_style: Option<bool>,
    /// Certificates (PEM) to trust beside the system's; by `AWS_CA_BUNDLE` when absent.
    pub ca_file: Option<PathBuf>,
    /// Storage class, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Server-side encryption: `AES256`, `aws:kms` or `aws:kms:KEY-ID`.
    pub sse: Option<String>,
    /// The lock on each volume and manifest.
    pub lock: Option<ObjectLock>,
    /// Checksum of parts and objects.
    pub checksum: Option<ChecksumKind>,
    /// Most parts in one upload; the provider's limit holds, too.
    pub max_parts: u32,
    /// Most parts of one backup on their way at once; by memory when absent.
    pub connections: Option<NonZeroU32>,
    /// Bytes of archives in a second, of all jobs together.
    pub max_upload_rate: Option<NonZeroU64>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl S3Settings {
    /// The defaults, for `bucket`.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            provider: None,
            region: None,
            path_style: None,
            ca_file: None,
            storage_class: None,
            sse: None,
            lock: None,
            checksum: Some(ChecksumKind::Crc64Nvme),
            max_parts: Limits::S3.max_parts,
            connections: None,
            max_upload_rate: None,
            timeouts: Timeouts::default(),
        }
    }
}

/// What keeps a text from being an endpoint.
pub fn endpoint_flaw(endpoint: &str) -> Option<&'static str> {
    let Ok(url) = url::Url::parse(endpoint) else {
        return Some("is no URL; one looks like https://s3.example.com");
    };
    if !["http", "https"].contains(&url.scheme()) {
        return Some("must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("has a user in it; credentials are access_key and secret_key");
    }
    if url.port() == Some(0) {
        return Some("has port 0, which is none");
    }
    (url.query().is_some() || url.fragment().is_some())
        .then_some("has ? or # in it; write scheme, host and port")
}
