//! What a bucket and its server need to be told.

use std::path::PathBuf;

use crate::store::progress::Timeouts;
use crate::store::{ChecksumKind, Limits};

/// A bucket, a prefix in it, and the server that has it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    pub bucket: String,
    /// With no slash at either end; may be empty.
    pub prefix: String,
    /// Endpoint URL; by the AWS environment (`AWS_ENDPOINT_URL`), then AWS itself, when absent.
    pub endpoint: Option<String>,
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
    /// Checksum of parts and objects.
    pub checksum: Option<ChecksumKind>,
    /// The provider's limit on parts in one upload.
    pub max_parts: u32,
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
            region: None,
            path_style: None,
            ca_file: None,
            storage_class: None,
            sse: None,
            checksum: Some(ChecksumKind::Crc64Nvme),
            max_parts: Limits::S3.max_parts,
            timeouts: Timeouts::default(),
        }
    }
}
