//! Axiom's ingest interface: events as a JSON array, posted to a dataset.

use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ringtap_batch::{
    clock::rfc3339,
    events::{self, Json, Present},
};
use serde::{Deserialize, Serialize};

use super::{SinkError, explain, retry_after, stdout::go_type, tls};
use crate::config::checked::{Axiom, Tls};

/// An interface that does not answer in this time is taken as gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 << 10;

/// A dataset.
pub struct AxiomStore {
    client: Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    token: header::HeaderValue,
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "_time")]
    time: String,
    #[serde(rename = "event_type")]
    kind: &'static str,
    #[serde(flatten)]
    fields: Json<'a>,
}

/// What the interface says of a request that it took.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    failed: u64,
}

impl AxiomStore {
    /// Sets up the client; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The token cannot stand in a header field, or the roots of TLS cannot be read.
    pub fn new(config: &Axiom) -> Result<Self, SinkError> {
        let set_up = |reason: String| SinkError::SetUp { store: "axiom", reason };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(&Tls::default()).map_err(|error| set_up(explain(&error)))?)
            .https_or_http()
            .enable_http1()
            .build();
        let mut token = header::HeaderValue::try_from(format!("Bearer {}", config.token))
            .map_err(|_| set_up("the token is not text".into()))?;
        token.set_sensitive(true);
        let dataset: String = form_urlencoded::byte_serialize(config.dataset.as_bytes()).collect();
        let url = format!("{}/v1/datasets/{dataset}/ingest", config.url.trim_end_matches('/'));
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), url, token })
    }

    /// Sends a batch of events; the answer is how many of them the interface refused. To send those again would be to send
    /// the others twice.
    ///
    /// # Errors
    ///
    /// The interface refuses the request, or cannot be reached.
    pub async fn events(&self, batch: &RecordBatch) -> Result<u64, SinkError> {
        let failed = |reason: String| SinkError::unavailable("axiom", reason);
        let events: Vec<Event<'_>> = (0..batch.num_rows()).map(|row| event(batch, row)).collect();
        let body = serde_json::to_vec(&events).map_err(|error| failed(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::AUTHORIZATION, &self.token)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(explain(&error)))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| failed(explain(&error)))?;
            let (status, after) = (response.status(), retry_after::after(response.headers()));
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            Ok::<_, SinkError>((status, after, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
        };
        let (status, after, body) =
            tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| failed("no answer in time".into()))??;
        if status != StatusCode::OK {
            let reason = format!("{status}: {}", String::from_utf8_lossy(&body));
            return Err(match is_for_good(status) {
                true => SinkError::Refused { store: "axiom", reason },
                false => SinkError::Unavailable { store: "axiom", reason, after },
            });
        }
        match serde_json::from_slice::<Answer>(&body) {
            Ok(Answer { failed }) => Ok(failed.min(batch.num_rows() as u64)),
            // It took the request; what it says of it is not in the documented form.
            Err(_) => Ok(0),
        }
    }
}

/// Whether the same request will be refused another time: a token can be mended, and an interface can be less busy.
fn is_for_good(status: StatusCode) -> bool {
    status.is_client_error()
        && ![
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&status)
}

fn event(batch: &RecordBatch, row: usize) -> Event<'_> {
    let times = events::row(batch, row).filter_map(|(path, value)| match (path, value) {
        ("timestamp" | "createdAt", Present::Time(ns)) => Some(rfc3339(ns)),
        _ => None,
    });
    Event {
        time: { times }.next().unwrap_or_default(),
        kind: go_type(events::event_type(batch)),
        fields: events::json(batch, row),
    }
}
