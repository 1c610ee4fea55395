//! AWS S3 and the servers that speak its protocol.
//!
//! What each server gets wrong is met by asking for less: the checksum of a part is computed before
//! it is sent (the body then goes out as it is, in several buffers, with no copy), the algorithm is
//! always named beside it, and the type beside the object's checksum. Source:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html> and its neighbours.
//!
//! The SDK tries nothing again and times nothing but connecting: [`super::retry`] and `body` do.
//!
//! | file | role |
//! |---|---|
//! | this | [`S3Store`]: opened, and a [`Store`] |
//! | `settings` | what a bucket and its server need to be told |
//! | `keys` | credentials, asked for again when they are refused |
//! | `proxy` | what goes through which proxy |
//! | `wire` | the HTTP client, and what is done to each reply before it is parsed |
//! | `profile` | what is known of a provider |
//! | `quirks` | what the server was found to do otherwise than AWS |
//! | `request` | what every request says |
//! | `body` | a part on its way |
//! | `reply` | a reply, waited for and judged |
//! | `explain` | what an error of the SDK's means |
//! | `words` | errors and replies in one line |
//! | `upload`, `object`, `listing`, `versions`, `bucket` | the operations, by what they are about |

mod body;
mod bucket;
mod explain;
mod keys;
mod listing;
mod object;
mod profile;
mod proxy;
mod quirks;
mod reply;
mod request;
mod settings;
mod upload;
mod versions;
mod wire;
mod words;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::gate::Gate;
use super::pace::{Pace, Paces};
pub use super::progress::Timeouts;
use super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, Store, StoreError, Upload, UploadInfo, Version, Written,
};
pub(crate) use explain::is_about_keys;
use keys::Keys;
pub use keys::{AccessKey, KeySource};
pub use profile::Profile;
pub(crate) use proxy::Proxies;
use quirks::Quirks;
use request::address;
pub use settings::{LockMode, ObjectLock, S3Settings, endpoint_flaw};
use wire::ServerClock;

/// A bucket and prefix on an S3 server.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    settings: Arc<S3Settings>,
    /// Bucket, prefix and endpoint, for messages.
    place: Arc<str>,
    keys: Keys,
    clock: ServerClock,
    /// The operations that the server has carried out in this run: what is refused after that may
    /// be a hiccup.
    accepted: Arc<Mutex<HashSet<&'static str>>>,
    /// By the inventory, or by the endpoint's host name.
    profile: &'static Profile,
    quirks: Quirks,
    paces: Paces,
    gate: Gate,
}

impl S3Store {
    /// Connects to nothing yet. Credentials come from `keys`, by default from the standard AWS
    /// chain, which also says the region and the endpoint where the settings have none.
    ///
    /// # Errors
    /// When the file with certificates cannot be used, or the environment's endpoint is none.
    pub async fn open(settings: &S3Settings, keys: Option<Arc<dyn KeySource>>) -> Result<Self> {
        let clock = ServerClock::default();
        let quirks = Quirks::default();
        let http = wire::client(settings.ca_file.as_deref(), clock.clone(), quirks.clone())
            .map_err(|why| StoreError::new(ErrorKind::Invalid, why))?;
        let shared = keys::chain(&http, settings.region.clone().map(Region::new)).await;
        let region = shared
            .region()
            .cloned()
            .unwrap_or_else(|| Region::new("us-east-1"));
        let environment = keys::endpoint(&shared);
        if settings.endpoint.is_none()
            && let Some(why) = environment.as_deref().and_then(endpoint_flaw)
        {
            let why = format!("AWS_ENDPOINT_URL, or endpoint_url of a profile, {why}");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        let endpoint = settings.endpoint.as_deref().or(environment.as_deref());
        let keys = Keys::new(keys, http.clone(), region.clone());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.timeouts.connect)
            .build();
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .http_client(http)
            .region(region)
            .credentials_provider(keys.clone())
            .identity_cache(IdentityCache::no_cache())
            .force_path_style(settings.path_style.unwrap_or(endpoint.is_some()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = endpoint {
            // Without a slash at its end the SDK glues bucket and path together.
            config = config.endpoint_url(format!("{}/", endpoint.trim_end_matches('/')));
        }
        let profile = match settings.provider {
            Some(profile) => profile,
            None => Profile::of_endpoint(endpoint),
        };
        let address = address(settings);
        let place = endpoint.map_or(address.clone(), |endpoint| {
            format!("{address} at {endpoint}")
        });
        Ok(Self {
            client: Client::from_conf(config.build()),
            settings: Arc::new(settings.clone()),
            place: place.into(),
            keys,
            clock,
            accepted: Arc::default(),
            profile,
            quirks,
            paces: Paces::default().and(settings.max_upload_rate.map(Pace::new)),
            gate: Gate::default(),
        })
    }

    /// The same store, whose archives also keep to a rate that it shares with others.
    #[must_use]
    pub fn paced(self, pace: Option<Arc<Pace>>) -> Self {
        Self {
            paces: self.paces.and(pace),
            ..self
        }
    }

    /// What is known of who has the server: by the inventory, by the endpoint's host name, or, where
    /// that says nothing, by what the server calls itself.
    pub fn profile(&self) -> &'static Profile {
        match self.quirks.profile() {
            Some(said) if self.profile == Profile::other() => said,
            _ => self.profile,
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn address(&self) -> String {
        address(&self.settings)
    }

    fn clock_offset(&self) -> Option<i64> {
        self.clock.offset()
    }

    fn limits(&self) -> Limits {
        Limits {
            max_parts: self.settings.max_parts.min(self.profile().max_parts),
            in_order: self.profile().in_order || self.quirks.in_order(),
            connections: self.settings.connections,
            ..Limits::S3
        }
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.settings.checksum
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        self.begin(key, backup_id).await
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        self.send_part(upload, number, body, checksum).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        self.complete(upload, parts, checksum).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.abort(upload).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        let sent = self.with_checksum(body);
        self.put_object(key, None, sent, true).await
    }

    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        let sent = self.with_checksum(body);
        self.put_object(key, None, sent, false).await
    }

    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let sent = (body, checksum);
        self.put_object(key, Some(backup_id), sent, true).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.read(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.look_at(key).await
    }

    async fn list(&self, prefix: &str, page: Option<String>) -> Result<Page<ObjectInfo>> {
        self.page_of_objects(prefix, page).await
    }

    async fn list_uploads(&self, prefix: &str, page: Option<String>) -> Result<Page<OpenUpload>> {
        self.page_of_uploads(prefix, page).await
    }

    async fn upload_info(&self, key: &str, upload_id: &str) -> Result<UploadInfo> {
        self.parts_of(key, upload_id).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.remove(key).await
    }

    async fn lock_joined(&self, key: &str) -> Result<()> {
        self.lock_if_it_is_not(key).await
    }

    async fn keeps_versions(&self) -> Option<bool> {
        self.versioning().await
    }

    async fn list_versions(&self, prefix: &str, page: Option<String>) -> Result<Page<Version>> {
        self.page_of_versions(prefix, page).await
    }

    async fn delete_version(&self, version: &Version) -> Result<()> {
        self.remove_version(version).await
    }
}
