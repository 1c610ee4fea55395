//! Credentials that are asked for again when the server refuses them.
//!
//! The SDK asks a provider once and keeps what it got until it says that it expires; what a profile
//! file said is kept for ever. A dump may outlive a session, a rotation, or a provider that fails
//! once. So the cache is here: [`Keys::forget`] empties it, and then everything is looked up from
//! the beginning.

use std::time::{Duration, SystemTime};

use super::words::chain as chain_of;
use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_s3::config::{Credentials, SharedHttpClient};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Credentials are renewed so long before they expire.
const EARLY: Duration = Duration::from_mins(5);
/// Many requests are refused at once; what was just looked up is not forgotten for the last of
/// them.
const FRESH: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_mins(1);

/// An access key, as somebody keeps it.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub id: SecretString,
    pub secret: SecretString,
    /// Of temporary credentials.
    pub session: Option<SecretString>,
}

/// Where an access key comes from. It is asked at the beginning, and again when the server refuses
/// what it said.
#[async_trait]
pub trait KeySource: Send + Sync + std::fmt::Debug {
    /// The key, or why there is none.
    async fn access_key(&self) -> Result<AccessKey, String>;
}

/// A store's credentials: from a source of its own, or from the standard AWS chain.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Option<Arc<dyn KeySource>>,
    http: SharedHttpClient,
    region: Region,
    known: Mutex<Option<(Credentials, Instant)>>,
}

impl Keys {
    pub(super) fn new(
        source: Option<Arc<dyn KeySource>>,
        http: SharedHttpClient,
        region: Region,
    ) -> Self {
        Self(Arc::new(Inner {
            source,
            http,
            region,
            known: Mutex::default(),
        }))
    }

    /// The server has refused what it was given.
    pub(super) async fn forget(&self) {
        let mut known = self.0.known.lock().await;
        if known
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() > FRESH)
        {
            *known = None;
        }
    }

    async fn get(&self) -> provider::Result {
        let mut known = self.0.known.lock().await;
        let expires_within = |credentials: &Credentials, time: Duration| {
            credentials
                .expiry()
                .is_some_and(|end| end < SystemTime::now() + time)
        };
        if let Some((credentials, _)) = &*known
            && !expires_within(credentials, EARLY)
        {
            return Ok(credentials.clone());
        }
        let asked = tokio::time::timeout(TIMEOUT, self.ask()).await;
        match asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(TIMEOUT))) {
            Ok(credentials) => {
                *known = Some((credentials.clone(), Instant::now()));
                Ok(credentials)
            }
            // What is still valid is better than nothing.
            Err(error) => match &*known {
                Some((credentials, _)) if !expires_within(credentials, Duration::ZERO) => {
                    tracing::debug!(%error, "the credentials were not renewed");
                    Ok(credentials.clone())
                }
                _ => Err(error),
            },
        }
    }

    async fn ask(&self) -> provider::Result {
        let Some(source) = &self.0.source else {
            return chain(&self.0.http, Some(self.0.region.clone()))
                .await
                .credentials_provider()
                .ok_or_else(CredentialsError::not_loaded_no_source)?
                .provide_credentials()
                .await
                .map_err(|error| CredentialsError::provider_error(why_none(&error)));
        };
        let key = source
            .access_key()
            .await
            .map_err(CredentialsError::provider_error)?;
        Ok(Credentials::new(
            key.id.expose_secret(),
            key.secret.expose_secret(),
            key.session.map(|token| token.expose_secret().to_owned()),
            None,
            "inventory",
        ))
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}

/// Why the AWS environment gives no key: what those say that it was to come from, and the variables
/// that led to them.
fn why_none(error: &CredentialsError) -> String {
    const NOT_ENABLED: &str = "the credential provider was not enabled";
    // What a provider says that nobody has set up.
    const UNUSED: [&str; 3] = ["not set", "not configured", "IMDS"];
    let words = chain_of(error);
    let mut why = match words.split_once("Attempted:") {
        None => words,
        Some((_, attempts)) => {
            let own = attempts.lines().filter_map(|line| {
                let (_, reason) = line.trim().split_once(": ")?;
                let reason = reason.trim_start_matches(NOT_ENABLED);
                let reason = reason.trim_start_matches(": ");
                let is_unused = UNUSED.iter().any(|words| reason.contains(words));
                (!reason.is_empty() && !is_unused).then_some(reason)
            });
            let own: Vec<&str> = own.collect();
            format!("there are no credentials: {}", own.join("; "))
        }
    };
    why.truncate(why.trim_end_matches([':', ' ', '.', '\n']).len());
    for (one, other) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ] {
        if set(one).is_some() && set(other).is_none() {
            why = format!("{why}; {one} is set, and {other} is not");
        }
    }
    let led: Vec<String> = [
        "AWS_PROFILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ]
    .into_iter()
    .filter_map(|name| Some(format!("{name} is {}", set(name)?)))
    .collect();
    if led.is_empty() {
        return why;
    }
    format!("{why} ({})", led.join(", "))
}

/// What the AWS environment says: variables, profiles, the machine's role.
pub(super) async fn chain(http: &SharedHttpClient, region: Option<Region>) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    // Some 20 KB.
    Box::pin(match region {
        Some(region) => loader.region(region).load(),
        None => loader.load(),
    })
    .await
}

/// The endpoint that the AWS environment names. The loaded configuration has neither the one for S3
/// alone nor one that is no URL, and the client would take both up behind everybody's back.
pub(super) fn endpoint(shared: &SdkConfig) -> Option<String> {
    let ignored = set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value == "true");
    let said = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].map(set);
    let said = said.into_iter().flatten().find(|_| !ignored);
    said.or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// A variable of the environment that says something.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
