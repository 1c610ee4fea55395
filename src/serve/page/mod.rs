//! What is served over HTTP: pages to look at, the same as JSON, metrics, and whether all is well
//! with the service itself. Nothing can be changed through it, unless that is allowed.
//!
//! | file | role |
//! |---|---|
//! | this | the routes, and how each answers |
//! | [`guard`] | who may look, and who may press a button |
//! | [`live`] | what the loop tells, and what is known of the stores |
//! | [`cache`] | one value, kept for a while |
//! | [`render`], [`chart`] | pages and pictures |
//!
//! Style and script are files of their own, so that the policy for content can do without anything
//! inline; whatever a browser loads comes from here.

mod cache;
mod chart;
mod guard;
mod live;
mod render;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{Stream, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use url::form_urlencoded;

use super::agenda::Chore;
use crate::upkeep::metrics::prometheus;
use guard::{FormSecret, Guard, admit};
pub(super) use live::Live;
use render::View;

/// The loop looks at its clock every 20 seconds.
const STUCK: Duration = Duration::from_mins(2);
/// Between two looks at what is under way.
const TICK: Duration = Duration::from_secs(1);
/// Nothing but what comes from here, and nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                      connect-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";
const HTML: &str = "text/html; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const OPENAPI: &str = include_str!("openapi.json");
const ICON: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>\
    <rect width='16' height='16' rx='3' fill='#0b57d0'/>\
    <path d='M3 8h7m-3-3 3 3-3 3M13 3v10' fill='none' stroke='#fff' stroke-width='2'/></svg>";

/// A page that is bound to its address, and not yet served.
pub struct Page {
    listener: TcpListener,
    guard: Guard,
    actions: Option<FormSecret>,
}

/// What every answer is made from.
struct Site {
    live: Arc<Live>,
    /// Of forms, where there are some.
    secret: Option<FormSecret>,
}

impl Page {
    /// Binds the address; what is read from `token_file` is asked for. With `actions`, something can
    /// be changed through it.
    ///
    /// # Errors
    /// What is wrong with either.
    pub async fn bind(
        address: SocketAddr,
        token_file: Option<&Path>,
        actions: bool,
    ) -> Result<Self, String> {
        let token = match token_file {
            None => None,
            Some(file) => {
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
                match text.trim() {
                    short if short.len() < 16 => {
                        let file = file.display();
                        return Err(format!("{file}: a token has 16 characters or more"));
                    }
                    token => Some(Sha256::digest(token).into()),
                }
            }
        };
        let is_loopback = address.ip().is_loopback();
        if !is_loopback && token.is_none() {
            return Err("beyond loopback there must be a token; add --token-file".into());
        }
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| error.to_string())?;
        if let Ok(bound) = listener.local_addr() {
            tracing::info!("listening on http://{bound}/");
        }
        let guard = Guard { token, is_loopback };
        let actions = if actions {
            Some(FormSecret::new().ok_or("this machine has no randomness for forms")?)
        } else {
            None
        };
        Ok(Self {
            listener,
            guard,
            actions,
        })
    }

    /// Whether something can be changed through it.
    pub fn can_act(&self) -> bool {
        self.actions.is_some()
    }

    /// Serves it until the handle is dropped.
    pub(super) fn serve(self, live: Arc<Live>) -> AbortOnDropHandle<()> {
        let secret = self.actions;
        let site = Arc::new(Site { live, secret });
        let router = Router::new()
            .route("/", get(overview))
            .route("/database", get(database))
            .route("/runs", get(runs))
            .route("/metrics", get(metrics))
            .route("/api/v1/status", get(status))
            .route("/api/v1/runs", get(runs_json))
            .route("/api/v1/backups", get(backups))
            .route("/api/v1/events", get(events))
            .route("/api/v1/actions", post(act))
            .route("/api/v1/openapi.json", get(async || good(JSON, OPENAPI)))
            .route(
                "/style.css",
                get(async || good("text/css; charset=utf-8", STYLE)),
            )
            .route(
                "/script.js",
                get(async || good("text/javascript; charset=utf-8", SCRIPT)),
            )
            .route("/icon.svg", get(async || good("image/svg+xml", ICON)))
            .layer(from_fn_with_state(self.guard, admit))
            // Whoever watches over the process need not be let in.
            .route("/healthz", get(health))
            .with_state(site);
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::error!("the page is not served any more: {error}");
            }
        }))
    }
}

fn answer(code: StatusCode, kind: &'static str, body: impl Into<String>) -> Response {
    let mut headers = HeaderMap::new();
    let fixed = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // A form must say from where it comes; nobody else is told.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let opener = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-opener-policy", opener.clone());
    headers.insert("cross-origin-resource-policy", opener);
    (code, headers, body.into()).into_response()
}

fn good(kind: &'static str, body: impl Into<String>) -> Response {
    answer(StatusCode::OK, kind, body)
}

fn told(kind: &'static str, body: Result<String, String>) -> Response {
    match body {
        Ok(body) => good(kind, body),
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why + "\n"),
    }
}

/// The value of `name` in a query or a form.
fn field(form: &[u8], name: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(form);
    let (_, value) = fields.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    let quiet = site.live.quiet();
    told(
        PLAIN,
        if quiet < STUCK {
            Ok("ok\n".to_owned())
        } else {
            let seconds = quiet.as_secs();
            Err(format!(
                "the service has not looked at its clock for {seconds} s"
            ))
        },
    )
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let status = site.live.status().await;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    told(kind, status.map(|status| prometheus(&status)))
}

async fn status(State(site): State<Arc<Site>>) -> Response {
    let status = site.live.status().await;
    let text = status.and_then(|status| {
        serde_json::to_string_pretty(&*status).map_err(|error| error.to_string())
    });
    told(JSON, text)
}

async fn runs_json(State(site): State<Arc<Site>>) -> Response {
    let ended: Vec<_> = site.live.ended();
    let ended: Vec<_> = ended.iter().map(|report| json!(**report)).collect();
    let runs = json!({ "version": 1, "jobs": site.live.jobs(), "ended": ended });
    good(JSON, runs.to_string())
}

async fn backups(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let wanted = field(query.unwrap_or_default().as_bytes(), "database");
    let text = site.live.catalog().await.map(|catalog| {
        let of = catalog.iter();
        let of = of.filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == *name));
        let each = of.flat_map(|(name, backups)| {
            backups.iter().map(move |stored| {
                json!({
                    "database": name,
                    "backup_id": stored.backup_id,
                    "store": stored.store,
                    "bytes": stored.bytes,
                })
            })
        });
        json!({ "version": 1, "backups": each.collect::<Vec<_>>() }).to_string()
    });
    told(JSON, text)
}

/// What is under way: at once, and then each second in which it is not what it was.
async fn events(State(site): State<Arc<Site>>) -> Response {
    let changes = stream::unfold((site, None), |(site, before)| async move {
        loop {
            if before.is_some() {
                tokio::time::sleep(TICK).await;
            }
            let now = json!({ "jobs": site.live.jobs() }).to_string();
            if before.as_ref() != Some(&now) {
                let event = Event::default().event("runs").data(&now);
                return Some((Ok(event), (site, Some(now))));
            }
            tokio::time::sleep(TICK).await;
        }
    });
    let alive = KeepAlive::new().interval(Duration::from_secs(15));
    Sse::new(sendable(changes))
        .keep_alive(alive)
        .into_response()
}

/// Says of a stream's type what the compiler cannot find out by itself.
fn sendable<S>(stream: S) -> impl Stream<Item = Result<Event, Infallible>> + Send
where
    S: Stream<Item = Result<Event, Infallible>> + Send,
{
    stream
}

async fn overview(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let page = field(query.as_bytes(), "page");
    let view = View {
        filter: field(query.as_bytes(), "q").unwrap_or_default(),
        page: page.and_then(|page| page.parse().ok()).unwrap_or_default(),
    };
    let (status, catalog) = tokio::join!(site.live.status(), site.live.catalog());
    let page =
        status.map(|status| render::overview(&status, &site.live, catalog.as_deref().ok(), &view));
    told(HTML, page)
}

async fn database(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let name = field(query.unwrap_or_default().as_bytes(), "name").unwrap_or_default();
    let status = match site.live.status().await {
        Ok(status) => status,
        Err(why) => return told(HTML, Err(why)),
    };
    let mut all = status.databases.iter();
    let Some(one) = all.find(|one| one.database == name) else {
        return answer(StatusCode::NOT_FOUND, PLAIN, "there is no such database\n");
    };
    let (catalog, verdicts) = tokio::join!(site.live.catalog(), site.live.verdicts(&name));
    let backups = catalog.as_ref().ok().and_then(|catalog| catalog.get(&name));
    let page = render::database(
        one,
        status.asked,
        backups.map_or(&[], Vec::as_slice),
        verdicts.as_deref(),
        site.secret.as_ref(),
    );
    good(HTML, page)
}

async fn runs(State(site): State<Arc<Site>>) -> Response {
    good(HTML, render::runs(&site.live.ended(), &site.live.jobs()))
}

/// A button was pressed.
async fn act(State(site): State<Arc<Site>>, headers: HeaderMap, form: Bytes) -> Response {
    let refuse = |code, why: &str| answer(code, PLAIN, why);
    let Some(secret) = site.secret.as_ref().filter(|_| site.live.can_act()) else {
        return refuse(StatusCode::NOT_FOUND, "nothing can be changed here\n");
    };
    let given = field(&form, "token").unwrap_or_default();
    if let Some(why) = secret.refuse(&headers, &given) {
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let name = field(&form, "database").unwrap_or_default();
    let house = site.live.house();
    let Some(entry) = house.inventory.entry(&name) else {
        return refuse(StatusCode::BAD_REQUEST, "there is no such database\n");
    };
    let entry = entry.name.clone();
    let chore = match field(&form, "action").unwrap_or_default().as_str() {
        "run" => Chore::Backup(entry),
        "verify" => Chore::Verify(entry),
        "drill" => Chore::Drill(entry),
        _ => return refuse(StatusCode::BAD_REQUEST, "there is no such action\n"),
    };
    tracing::info!("asked for on the page: {}", chore.describe());
    if !site.live.wish(chore) {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too much is wished for at once\n",
        );
    }
    let query: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let mut there = answer(StatusCode::SEE_OTHER, PLAIN, "");
    if let Ok(place) = HeaderValue::try_from(format!("/database?name={query}")) {
        there.headers_mut().insert(header::LOCATION, place);
    }
    there
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::catalog::{BackupId, Manifest, manifest_key};
    use crate::config::Inventory;
    use crate::run::Workshop;
    use crate::serve::agenda::Agenda;
    use crate::serve::house::House;
    use crate::store::memory::MemoryStore;
    use crate::store::{Limits, SharedStore, Store};

    /// Databases, each with so many backups.
    async fn site(databases: usize, backups: i64) -> Arc<Site> {
        let mut text = "[stores.s]\nurl = \"s3://bucket/p\"\n[defaults]\nengine = \"command\"\n\
                        command = [\"x\"]\nschedule = \"0 2 * * *\"\n"
            .to_owned();
        let (store, now) = (MemoryStore::new(Limits::S3, None), Timestamp::now());
        for number in 0..databases {
            let name = format!("database-{number}");
            text += &format!("[databases.{name}]\n");
            for day in 0..backups {
                let id = BackupId::at(now - SignedDuration::from_hours(24 * day));
                let manifest = Manifest::sample(&name, &id);
                for (key, volume) in manifest.volume_keys().zip(&manifest.archive.volumes) {
                    let size = usize::try_from(volume.size).unwrap();
                    store.put(&key, vec![0; size].into()).await.unwrap();
                }
                // The others are never read, only listed.
                let text = if day < 2 {
                    manifest.to_json()
                } else {
                    b"{}".to_vec()
                };
                let key = manifest_key(&name, &id);
                store.put(&key, Bytes::from(text)).await.unwrap();
            }
        }
        let inventory = Inventory::parse(Path::new("t.toml"), &text).unwrap();
        let store: SharedStore = Arc::new(store);
        let stores = BTreeMap::from([("s".to_owned(), store)]);
        let agenda = Agenda::new(&inventory);
        let house = Arc::new(House {
            workshop: Workshop::new(&inventory.run, 1),
            patient: stores.clone(),
            asked: stores.clone(),
            stores,
            inventory,
        });
        let live = Arc::new(Live::new(house, agenda, None));
        Arc::new(Site { live, secret: None })
    }

    async fn length(answer: Response) -> usize {
        assert_eq!(answer.status(), StatusCode::OK);
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
        body.unwrap().len()
    }

    /// The pages of so many backups, each with the time that it took, in which nothing is asked of
    /// the store but for the first.
    async fn shown(databases: usize, backups_each: i64) -> Vec<(&'static str, Duration)> {
        let site = site(databases, backups_each).await;
        let query = |text: &str| RawQuery(Some(text.to_owned()));
        let mut times = Vec::new();
        for (what, path) in [
            ("cold", ""),
            ("warm", ""),
            ("some", "q=database-99"),
            ("last", "page=9"),
        ] {
            let start = Instant::now();
            let bytes = length(overview(State(site.clone()), query(path)).await).await;
            times.push((what, start.elapsed()));
            assert!(bytes < 95_000, "{what}: {bytes} bytes");
        }
        // What is old is shown until there is something newer.
        site.live.forget();
        let start = Instant::now();
        length(overview(State(site.clone()), query("")).await).await;
        times.push(("old", start.elapsed()));
        let start = Instant::now();
        let all = length(backups(State(site.clone()), RawQuery(None)).await).await;
        times.push(("all as JSON", start.elapsed()));
        let count = databases * usize::try_from(backups_each).unwrap();
        assert!(all > count * 50, "{all} bytes of {count} backups");
        times
    }

    #[tokio::test]
    async fn a_page_of_many_databases_is_small_and_the_list_of_backups_is_whole() {
        shown(300, 3).await;
    }

    #[tokio::test]
    #[ignore = "measures: cargo test --release --features demo --lib -- --ignored --nocapture thousand"]
    async fn a_thousand_databases_with_100_000_backups_are_shown_at_once() {
        for (what, time) in shown(1_000, 100).await {
            println!("{what}: {time:?}");
        }
    }
}
