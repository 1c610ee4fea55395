//! What is served over HTTP: a page to look at, the same as JSON, metrics, and whether all is well
//! with the service itself. Nothing can be changed through it.
//!
//! On loopback a request must name a loopback host, so that no page of another site reaches it under
//! a name of its own; beyond loopback there must be a token. TLS is a proxy's to add.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::agenda::{Agenda, Chore};
use super::house::House;
use crate::units;
use crate::upkeep::metrics::prometheus;
use crate::upkeep::status::{Health, Standing, Status, status};

/// The stores are asked no more often than this, however often the page is loaded.
const FRESH: Duration = Duration::from_secs(15);
/// The loop looks at its clock every 20 seconds.
const STUCK: Duration = Duration::from_mins(2);
/// Scripts, images and other sites have no place in it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";

/// A page that is bound to its address, and not yet served.
pub struct Page {
    listener: TcpListener,
    guard: Guard,
}

/// Who may look.
#[derive(Clone)]
struct Guard {
    /// SHA-256 of the token: compared so, its length and beginning cannot be found out by time.
    token: Option<[u8; 32]>,
    is_loopback: bool,
}

/// What the loop tells the page.
pub(super) struct Live {
    house: Mutex<Arc<House>>,
    agenda: Mutex<Agenda>,
    told: Mutex<Instant>,
    asked: tokio::sync::Mutex<Option<(Instant, Arc<Status>)>>,
}

impl Live {
    pub fn new(house: Arc<House>, agenda: Agenda) -> Self {
        Self {
            house: Mutex::new(house),
            agenda: Mutex::new(agenda),
            told: Mutex::new(Instant::now()),
            asked: tokio::sync::Mutex::default(),
        }
    }

    /// How the loop stands.
    pub fn tell(&self, house: &Arc<House>, agenda: &Agenda) {
        *lock(&self.house) = house.clone();
        *lock(&self.agenda) = agenda.clone();
        *lock(&self.told) = Instant::now();
    }

    /// How the databases stand: asked once for all who want to know at the time.
    async fn status(&self) -> Result<Arc<Status>, String> {
        let mut asked = self.asked.lock().await;
        if let Some((_, status)) = asked.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(status.clone());
        }
        let house = lock(&self.house).clone();
        let found = status(&house.inventory, &house.stores, &[], None, Timestamp::now()).await;
        let found = Arc::new(found.map_err(|error| error.to_string())?);
        *asked = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Page {
    /// Binds the address; what is read from `token_file` is asked for.
    ///
    /// # Errors
    /// What is wrong with either.
    pub async fn bind(address: SocketAddr, token_file: Option<&Path>) -> Result<Self, String> {
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
        Ok(Self { listener, guard })
    }

    /// Serves it until the handle is dropped.
    pub(super) fn serve(self, live: Arc<Live>) -> AbortOnDropHandle<()> {
        let router = Router::new()
            .route("/", get(overview))
            .route("/metrics", get(metrics))
            .route("/api/v1/status", get(json))
            .layer(from_fn_with_state(self.guard, admit))
            // Whoever watches over the process need not be let in.
            .route("/healthz", get(health))
            .with_state(live);
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::error!("the page is not served any more: {error}");
            }
        }))
    }
}

async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if guard.is_loopback && guard.token.is_none() && !text(header::HOST).is_some_and(is_local) {
        return (StatusCode::FORBIDDEN, "this is for loopback alone\n").into_response();
    }
    if let Some(token) = &guard.token
        && !text(header::AUTHORIZATION).is_some_and(|given| is_token(given, token))
    {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"tapline\"")];
        return (StatusCode::UNAUTHORIZED, ask, "a token is asked for\n").into_response();
    }
    next.run(request).await
}

/// Whether a `Host` names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    ["localhost", "127.0.0.1", "::1"].contains(&name.unwrap_or_default())
}

fn is_token(given: &str, token: &[u8; 32]) -> bool {
    let (kind, value) = given.split_once(' ').unwrap_or_default();
    let value = match kind.to_ascii_lowercase().as_str() {
        "bearer" => value.trim().as_bytes().to_vec(),
        "basic" => {
            let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
            let at = decoded.iter().position(|byte| *byte == b':');
            at.map_or(Vec::new(), |at| decoded[at + 1..].to_vec())
        }
        _ => return false,
    };
    let hash: [u8; 32] = Sha256::digest(value).into();
    hash == *token
}

fn answer(kind: &'static str, body: Result<String, String>) -> Response {
    let headers = |kind: &'static str| {
        let mut headers = HeaderMap::new();
        let fixed = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
        ];
        for (name, value) in fixed {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        headers
    };
    match body {
        Ok(body) => (headers(kind), body).into_response(),
        Err(why) => {
            let plain = headers("text/plain; charset=utf-8");
            (StatusCode::SERVICE_UNAVAILABLE, plain, why + "\n").into_response()
        }
    }
}

async fn health(State(live): State<Arc<Live>>) -> Response {
    let quiet = lock(&live.told).elapsed();
    let body = if quiet < STUCK {
        Ok("ok\n".to_owned())
    } else {
        Err(format!(
            "the service has not looked at its clock for {} s",
            quiet.as_secs()
        ))
    };
    answer("text/plain; charset=utf-8", body)
}

async fn metrics(State(live): State<Arc<Live>>) -> Response {
    let status = live.status().await;
    let text = status.map(|status| prometheus(&status));
    answer("text/plain; version=0.0.4; charset=utf-8", text)
}

async fn json(State(live): State<Arc<Live>>) -> Response {
    let status = live.status().await;
    let text = status.and_then(|status| {
        serde_json::to_string_pretty(&*status).map_err(|error| error.to_string())
    });
    answer("application/json", text)
}

async fn overview(State(live): State<Arc<Live>>) -> Response {
    let status = live.status().await;
    let agenda = lock(&live.agenda).clone();
    let house = lock(&live.house).clone();
    answer(
        "text/html; charset=utf-8",
        status.map(|status| render(&status, &agenda, &house)),
    )
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
    <meta name=viewport content='width=device-width,initial-scale=1'>\
    <meta http-equiv=refresh content=30><title>tapline</title><style>\
    :root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;\
    max-width:70rem;padding:0 1rem;background:Canvas;color:CanvasText}\
    .wide{overflow-x:auto}table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid color-mix(in srgb,\
    CanvasText 20%,Canvas);vertical-align:top}td.n{white-space:nowrap}caption{text-align:left;\
    font-weight:600;padding:.5rem 0}.good{color:#067a34}.bad{color:#b3140b;font-weight:600}\
    @media(prefers-color-scheme:dark){.good{color:#5fd38d}.bad{color:#ff8a80}}\
    small{opacity:.8}</style>";

/// The overview; every text in it is escaped.
fn render(status: &Status, agenda: &Agenda, house: &House) -> String {
    let bad = status
        .databases
        .iter()
        .filter(|one| one.health != Health::Good)
        .count();
    let asked = status.asked.strftime("%Y-%m-%d %H:%M:%S UTC");
    let mut page = HEAD.to_owned();
    let said = match bad {
        0 => "<span class=good>All databases are well.</span>".to_owned(),
        bad => format!(
            "<span class=bad>{} not well.</span>",
            units::count(bad, "database")
        ),
    };
    // Writing to a text does not fail.
    let _ = write!(
        page,
        "<main><h1>tapline</h1><p role=status>{said} <small>Asked {asked}.</small></p>\
         <div class=wide tabindex=0 role=region aria-label=Databases><table><caption>Databases</caption>\
         <thead><tr><th scope=col>Database<th scope=col>State<th scope=col>Last backup\
         <th scope=col>Dump<th scope=col>Read back<th scope=col>Next</tr></thead><tbody>"
    );
    for one in &status.databases {
        page += &row(one, status.asked, agenda, house);
    }
    page += "</tbody></table></div>";
    for remark in &status.remarks {
        let _ = write!(page, "<p class=bad>{}</p>", escape(remark));
    }
    page + "<p><small><a href=/api/v1/status>JSON</a> · <a href=/metrics>metrics</a></small></p></main>"
}

fn row(one: &Standing, asked: Timestamp, agenda: &Agenda, house: &House) -> String {
    let (class, state) = match one.health {
        Health::Good => ("good", "good"),
        Health::TooOld => ("bad", "too old"),
        Health::Damaged => ("bad", "damaged"),
        Health::Missing => ("bad", "none"),
        Health::Unknown => ("bad", "unknown"),
    };
    let running = one.open.as_ref().filter(|open| open.alive);
    let running = running.map_or("", |_| ", running");
    let mut notes = String::new();
    for note in one.why.iter().chain(&one.warnings) {
        let _ = write!(notes, "<br><small>{}</small>", escape(note));
    }
    let ago = |seconds: f64| format!("{} ago", units::time(seconds.max(0.0)));
    let since = |moment: Timestamp| ago(asked.duration_since(moment).as_secs_f64());
    let nothing = || "–".to_owned();
    let last = one.last.as_ref();
    let entry = house
        .inventory
        .entry(&one.database)
        .map(|entry| entry.name.clone());
    let next = entry.and_then(|name| {
        let mut chores = agenda.chores(asked);
        let (_, next) = chores.find(|(chore, _)| **chore == Chore::Backup(name.clone()))?;
        Some(match next {
            Some(next) if next > asked => next.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            _ => "now".to_owned(),
        })
    });
    format!(
        "<tr><th scope=row>{}<td><span class={class}>{state}{running}</span>{notes}\
         <td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
        escape(&one.database),
        last.map_or_else(nothing, |last| since(last.began)),
        last.and_then(|last| last.dump_bytes)
            .map_or_else(nothing, units::size),
        one.read_back()
            .map_or_else(nothing, |read| since(read.ended)),
        next.unwrap_or_else(nothing),
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearers_or_a_password_and_nothing_else() {
        let token: [u8; 32] = Sha256::digest("0123456789abcdef").into();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(is_token("Bearer 0123456789abcdef", &token));
        assert!(is_token(&basic("anybody:0123456789abcdef"), &token));
        for given in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Digest x",
            "Basic !",
        ] {
            assert!(!is_token(given, &token), "{given}");
        }
        assert!(!is_token(&basic("0123456789abcdef"), &token));
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "localhost:80", "127.0.0.1:8737", "[::1]:8737"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
