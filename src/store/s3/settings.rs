//! What a bucket and its server need to be told.

use std::path::PathBuf;
use std::time::Duration;

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

/// How long one try may take. A body may take as long as its bytes move: 10 kB/s is slow and not
/// broken, and a try that is ended early has to send all of it again.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To be connected, TLS included.
    pub connect: Duration,
    /// In which not one byte of a body moves, either way.
    pub stall: Duration,
    /// From a request's last byte to its reply's. What lies in the sockets' buffers and proxies'
    /// memory on the way is still being sent then: 5 minutes empty 30 MB at 100 kB/s.
    pub reply: Duration,
    /// The same for a completion, for which S3 says "several minutes":
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>.
    pub completion: Duration,
    /// From beginning to end of a request that carries nothing, such as a listing's page.
    pub small: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_mins(1),
            reply: Duration::from_mins(5),
            completion: Duration::from_mins(10),
            small: Duration::from_mins(1),
        }
    }
}
