//! The server's HTTP side: every request is logged, meets its fault where a rule says so, and goes
//! on to S3's operations otherwise. Below `/-/` are the controls of a server that is a process of
//! its own:
//!
//! | request | does |
//! |---|---|
//! | `POST /-/rules` with a rule in JSON | adds it ([`Rule`](super::fault::Rule)) |
//! | `DELETE /-/rules` | from now on nothing goes wrong |
//! | `GET /-/log` | what was asked so far |
//! | `GET /-/state` | the keys of all objects, the number of open uploads |
//! | `POST /-/age` with a number of seconds | all that is stored becomes so much older |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use s3s::Body;
use s3s::service::S3Service;

use super::fault::{Fault, Faults};
use super::link::Link;
use super::request::{Asked, Log, Pending};
use crate::store::memory::MemoryStore;

/// What a captive portal says.
const WEB_PAGE: &str = "<!DOCTYPE html><html><body>Please sign in to this network.</body></html>";
/// Pieces of an answer that trickles.
const TRICKLES: usize = 100;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a scripted fault closes the connection")]
pub(super) struct Cut;

type Answer = Result<Response<Body>, Cut>;

#[derive(Clone)]
pub(super) struct Front {
    pub store: MemoryStore,
    /// S3's operations on a store.
    pub s3: fn(MemoryStore) -> S3Service,
    pub faults: Arc<Faults>,
    pub log: Arc<Log>,
    pub link: Arc<Link>,
}

impl Front {
    pub(super) async fn answer(self, request: Request<Incoming>) -> Answer {
        let uri = request.uri();
        if let Some(control) = uri.path().strip_prefix("/-/") {
            let control = control.to_owned();
            return self.control(&control, request).await;
        }
        let query = uri.query().unwrap_or_default();
        let asked = Asked::new(request.method().as_str(), uri.path(), query);
        let fault = self.faults.meet(&asked);
        let pending = self.log.add(asked.clone());
        tokio::time::sleep(self.link.latency()).await;
        match fault {
            None => {
                let answer = done(self.s3, self.store, request.map(Body::from)).await;
                drop(pending);
                answer
            }
            Some(fault) => self.meet(fault, &asked, request, pending).await,
        }
    }

    async fn meet(
        self,
        fault: Fault,
        asked: &Asked,
        request: Request<Incoming>,
        pending: Pending,
    ) -> Answer {
        let (head, mut incoming) = request.into_parts();
        let length = length(&head.headers);
        let body = match fault {
            Fault::CutBefore => return Err(Cut),
            Fault::CutInBody => {
                collect(&mut incoming, length / 2, None).await?;
                return Err(Cut);
            }
            Fault::SlowBody { bytes_per_second } => {
                collect(&mut incoming, u64::MAX, Some(bytes_per_second)).await?
            }
            _ => collect(&mut incoming, u64::MAX, None).await?,
        };
        let is_head = head.method == Method::HEAD;
        let request = Request::from_parts(head, Body::from(body));
        let Self { store, s3, log, .. } = self;
        let on = move |store| done(s3, store, request);
        match fault {
            Fault::Denied => Ok(error(403, "AccessDenied")),
            Fault::SlowDown => Ok(error(503, "SlowDown")),
            Fault::SlowDownAbove { at_once } if log.pending() > at_once => {
                Ok(error(503, "SlowDown"))
            }
            Fault::InternalError => Ok(error(500, "InternalError")),
            Fault::DoneInternalError => {
                on(store).await?;
                Ok(error(500, "InternalError"))
            }
            Fault::ReplyLost => {
                on(store).await?;
                Err(Cut)
            }
            Fault::CutBefore | Fault::CutInBody | Fault::CutAfterBody => Err(Cut),
            Fault::Stalled => std::future::pending().await,
            Fault::DoneStalled => {
                on(store).await?;
                std::future::pending().await
            }
            Fault::SlowDownAbove { .. } | Fault::SlowBody { .. } => on(store).await,
            Fault::RangeIgnored => {
                let whole = store.read(&asked.key).ok_or(Cut)?;
                Ok(whole_object(on(store).await?, whole))
            }
            Fault::SlowReply { after } => {
                let answer = on(store).await;
                tokio::time::sleep(after).await;
                answer
            }
            Fault::TrickledReply { gap } => trickled(on(store).await?, gap).await,
            Fault::Late { by } => {
                let late = async move {
                    tokio::time::sleep(by).await;
                    let answer = on(store).await;
                    drop(pending);
                    answer
                };
                tokio::spawn(late).await.map_err(|_| Cut)?
            }
            Fault::ErrorIn200 => Ok(error(200, "InternalError")),
            Fault::DoneErrorIn200 => {
                on(store).await?;
                Ok(error(200, "InternalError"))
            }
            Fault::WithoutEffect => on(store.copy()).await,
            Fault::EmptyWithoutEffect => Ok(Response::new(Body::empty())),
            Fault::Garbage => Ok(web_page()),
            Fault::DoneGarbage => {
                on(store).await?;
                Ok(web_page())
            }
            Fault::NoEtag => {
                let mut answer = on(store).await?;
                answer.headers_mut().remove(ETAG);
                Ok(answer)
            }
            Fault::CutReply { after } => cut_reply(on(store).await?, after, is_head).await,
            Fault::ShortReply => short(on(store).await?, is_head).await,
            Fault::WrongReply => wrong(on(store).await?).await,
        }
    }

    async fn control(self, path: &str, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let body = collect(&mut request.into_body(), u64::MAX, None).await?;
        let answer = match (method.as_str(), path) {
            ("POST", "rules") => match serde_json::from_slice(&body) {
                Ok(rule) => {
                    self.faults.add(rule);
                    Ok(serde_json::Value::Null)
                }
                Err(error) => Err(error.to_string()),
            },
            ("DELETE", "rules") => {
                self.faults.clear();
                Ok(serde_json::Value::Null)
            }
            ("GET", "log") => serde_json::to_value(self.log.all()).map_err(|e| e.to_string()),
            ("GET", "state") => Ok(serde_json::json!({
                "keys": self.store.keys(),
                "open_uploads": self.store.open_uploads(),
            })),
            ("POST", "age") => match serde_json::from_slice(&body) {
                Ok(seconds) => {
                    self.store.age_by(Duration::from_secs(seconds));
                    Ok(serde_json::Value::Null)
                }
                Err(error) => Err(error.to_string()),
            },
            _ => Err("there is no such control".into()),
        };
        let (status, text) = match answer {
            Ok(value) => (StatusCode::OK, value.to_string()),
            Err(words) => (StatusCode::BAD_REQUEST, words),
        };
        let mut answer = Response::new(Body::from(text + "\n"));
        *answer.status_mut() = status;
        Ok(answer)
    }
}

async fn done(
    s3: fn(MemoryStore) -> S3Service,
    store: MemoryStore,
    request: Request<Body>,
) -> Answer {
    s3(store).call(request).await.map_err(|_| Cut)
}

fn length(headers: &HeaderMap) -> u64 {
    let text = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Reads a body, or the first `most` bytes of it and some; at `rate` bytes per second.
async fn collect(body: &mut Incoming, most: u64, rate: Option<u32>) -> Result<Bytes, Cut> {
    let mut all = BytesMut::new();
    while (all.len() as u64) < most
        && let Some(frame) = body.frame().await
    {
        let Ok(bytes) = frame.map_err(|_| Cut)?.into_data() else {
            continue;
        };
        if let Some(rate) = rate {
            #[expect(clippy::cast_precision_loss, reason = "a time to wait")]
            let seconds = bytes.len() as f64 / f64::from(rate);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

fn error(status: u16, code: &str) -> Response<Body> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{code}</Code><Message>a scripted fault</Message></Error>"
    );
    let mut answer = Response::new(Body::from(xml));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    let xml = HeaderValue::from_static("application/xml");
    answer.headers_mut().insert(CONTENT_TYPE, xml);
    answer
}

fn web_page() -> Response<Body> {
    let mut answer = Response::new(Body::from(WEB_PAGE.to_owned()));
    let html = HeaderValue::from_static("text/html");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    answer
}

/// An answer's head, and its body as it was to be sent.
async fn take_apart(answer: Response<Body>) -> Result<(Response<Body>, Bytes), Cut> {
    let (head, body) = answer.into_parts();
    let bytes = BodyExt::collect(body).await.map_err(|_| Cut)?.to_bytes();
    Ok((Response::from_parts(head, Body::empty()), bytes))
}

fn body_of<E>(pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    Body::http_body_unsync(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
}

async fn trickled(answer: Response<Body>, gap: Duration) -> Answer {
    let (head, body) = take_apart(answer).await?;
    let size = body.len().div_ceil(TRICKLES).max(1);
    let pieces = stream::unfold(body, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(gap).await;
        let piece = left.split_to(size.min(left.len()));
        Some((Ok::<_, Infallible>(piece), left))
    });
    Ok(head.map(|_| body_of(pieces)))
}

/// The length is that of the whole body, so the client can tell.
async fn cut_reply(answer: Response<Body>, after: u64, is_head: bool) -> Answer {
    if is_head {
        return Err(Cut);
    }
    let (mut head, mut body) = take_apart(answer).await?;
    head.headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let after = usize::try_from(after).unwrap_or(usize::MAX);
    if after >= body.len() {
        return Ok(head.map(|_| Body::from(body)));
    }
    let begin = body.split_to(after);
    // A breath between the two, so that the bytes before the cut arrive.
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Err(Cut)
    });
    Ok(head.map(|_| body_of(stream::iter([Ok(begin)]).chain(end))))
}

/// The length is that of the short body, so only what is in it can tell.
async fn short(answer: Response<Body>, is_head: bool) -> Answer {
    let (mut head, mut body) = take_apart(answer).await?;
    if is_head {
        let half = length(head.headers()) / 2;
        head.headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(half));
        return Ok(head);
    }
    body.truncate(body.len() / 2);
    head.headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(head.map(|_| Body::from(body)))
}

fn whole_object(answer: Response<Body>, whole: Vec<u8>) -> Response<Body> {
    let mut answer = answer.map(|_| Body::empty());
    *answer.status_mut() = StatusCode::OK;
    answer.headers_mut().remove(CONTENT_RANGE);
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    answer.map(|_| Body::from(whole))
}

async fn wrong(answer: Response<Body>) -> Answer {
    let (head, body) = take_apart(answer).await?;
    let mut body = Vec::from(body);
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
    Ok(head.map(|_| Body::from(body)))
}
