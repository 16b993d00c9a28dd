//! Answers to the page.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited, channel::Channel};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use tokio::sync::Semaphore;

use super::{Feed, Filter, access::Access, stream};
use crate::show;

/// Viewers at a time; each keeps a connection.
const VIEWERS_MAX: usize = 8;
/// Bytes of a list of ids.
const IDS_MAX: usize = 1 << 20;
/// Bytes of the transactions in an archive, which comes to a few times as many while it is made.
const HAR_MAX: usize = 32 << 20;
/// Where all of it lies.
const ROOT: &str = "/devtools";

/// A whole answer, or one that does not end.
pub type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// The page and what it shows.
#[derive(Debug)]
pub struct Devtools {
    /// Transactions.
    pub feed: Arc<Feed>,
    access: Access,
    hostname: String,
    viewers: Arc<Semaphore>,
    /// One archive at a time.
    exports: Arc<Semaphore>,
}

impl Devtools {
    /// Shows `feed` to those whom `access` lets in.
    #[must_use]
    pub fn new(feed: Arc<Feed>, access: Access, hostname: String) -> Self {
        Self {
            feed,
            access,
            hostname,
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            exports: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Devtools {
    /// Where the token lies, if one was made.
    #[must_use]
    pub fn token_file(&self) -> Option<&std::path::Path> {
        self.access.file.as_deref()
    }
}

/// Whether a path is one of the page's.
#[must_use]
pub fn is_page(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Files of the page: they hold nothing that was captured, so everybody may have them.
const FILES: [(&str, &str, &[u8]); 5] = [
    ("", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_bytes!("page/app.js")),
    ("/uplot.js", "text/javascript; charset=utf-8", include_bytes!("page/vendor/uPlot.iife.min.js")),
    ("/uplot.css", "text/css; charset=utf-8", include_bytes!("page/vendor/uPlot.min.css")),
];

/// Answers a request below `/devtools`.
pub async fn answer(devtools: &Devtools, request: Request<Incoming>) -> Response<Body> {
    let mut response = route(devtools, request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

async fn route(devtools: &Devtools, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().strip_prefix(ROOT).unwrap_or_default().to_owned();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if let Some((_, kind, bytes)) = FILES.iter().find(|(name, ..)| *name == path.trim_end_matches('/')) {
        return if reads { whole(StatusCode::OK, kind, Bytes::from_static(bytes)) } else { only("GET") };
    }
    let Some(asked) = path.strip_prefix("/api/") else { return missing("there is no such page") };
    if !devtools.access.lets_in(&request) {
        return refuse(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
    }
    match (asked, reads) {
        ("events", true) => events(devtools, request.uri().query().unwrap_or_default()),
        ("har", false) if request.method() == Method::POST => har(devtools, request.into_body()).await,
        ("har", _) => only("POST"),
        (asked, true) => match asked.strip_prefix("transactions/") {
            Some(asked) => transaction(devtools, asked),
            None => missing("there are events, transactions/ID, transactions/ID/curl and har"),
        },
        _ => only("GET"),
    }
}

fn events(devtools: &Devtools, query: &str) -> Response<Body> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let expression = pairs.filter(|(name, _)| name == "expr").map(|(_, value)| value).last().unwrap_or_default();
    let filter = match Filter::new(&expression) {
        Ok(filter) => filter,
        Err(fault) => return refuse(StatusCode::BAD_REQUEST, &fault),
    };
    let Ok(slot) = devtools.viewers.clone().try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many look already");
    };
    let body = stream::start(devtools.feed.clone(), filter, devtools.hostname.clone(), slot);
    let mut response = Response::new(Either::Right(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

/// `ID` or `ID/curl`.
fn transaction(devtools: &Devtools, asked: &str) -> Response<Body> {
    let (id, form) = asked.split_once('/').unwrap_or((asked, ""));
    let Some(object) = devtools.feed.detail(id) else {
        return missing("it is not in memory any more; its object may be in a store: ringtap show DIGEST");
    };
    match form {
        "" => whole(StatusCode::OK, "application/json", object),
        "curl" => match show::curl_of(&object) {
            Ok(command) => whole(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from(command)),
            Err(reason) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        },
        _ => missing("there is no such form"),
    }
}

/// An archive of the transactions whose ids are asked for, those that are still there.
async fn har(devtools: &Devtools, body: Incoming) -> Response<Body> {
    let Ok(asked) = Limited::new(body, IDS_MAX).collect().await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "too many ids");
    };
    let Ok(ids) = serde_json::from_slice::<Vec<String>>(&asked.to_bytes()) else {
        return refuse(StatusCode::BAD_REQUEST, "a list of ids in JSON is expected");
    };
    let Ok(_one) = devtools.exports.acquire().await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent stops");
    };
    let objects = devtools.feed.details(&ids.iter().map(String::as_str).collect());
    if objects.iter().map(Bytes::len).sum::<usize>() > HAR_MAX {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "these come to more than 32 MiB: filter, and export fewer");
    }
    // Bodies are decoded and written again, which takes its time.
    match tokio::task::spawn_blocking(move || show::har_of(objects.into_iter())).await {
        Ok(archive) => whole(StatusCode::OK, "application/json", Bytes::from(archive)),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "this answer has crashed; please report it"),
    }
}

fn whole(status: StatusCode, kind: &str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(bytes)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_str(kind).unwrap_or(header::HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", Bytes::from(format!("{why}\n")))
}

fn missing(why: &str) -> Response<Body> {
    refuse(StatusCode::NOT_FOUND, why)
}

fn only(method: &str) -> Response<Body> {
    refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("only {method}"))
}
