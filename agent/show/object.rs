//! What an object says. Every field may be missing: levels leave them out, and so do other programs that write this form.

use std::{borrow::Cow, collections::BTreeMap};

use base64_simd::STANDARD;
use serde::{Deserialize, Deserializer};

use super::find::Loaded;

/// Bytes that a body may come to that is still in its content codings.
const PLAIN_MAX: usize = 64 << 20;

/// A stored object.
#[derive(Debug)]
pub(super) struct Object {
    pub digest: String,
    pub content: Content,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Content {
    Transaction(Box<Transaction>),
    /// Other JSON, such as a conversation or matches.
    Json(String),
    /// A transaction as text, a body, or anything else.
    Other(Vec<u8>),
}

impl Content {
    /// Why it is none.
    pub(super) fn no_transaction(&self) -> String {
        match self {
            Self::Other(bytes) if bytes.starts_with(b"HTTP Transaction\n") => {
                "it is a transaction in text; only those in JSON can be written like this (`format: json` of `http_capture`)"
            }
            _ => "it is no transaction",
        }
        .into()
    }
}

impl Object {
    /// Of bytes that were in no store.
    pub(super) fn of(bytes: bytes::Bytes) -> Self {
        Self::read(Loaded { digest: ringtap_batch::objects::digest(&bytes), bytes: bytes.into() })
    }

    pub(super) fn read(Loaded { digest, bytes }: Loaded) -> Self {
        let content = match serde_json::from_slice::<Transaction>(&bytes) {
            Ok(transaction) if transaction.is_one() => Content::Transaction(Box::new(transaction.completed())),
            _ => match String::from_utf8(bytes) {
                Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => Content::Json(text),
                Ok(text) => Content::Other(text.into_bytes()),
                Err(error) => Content::Other(error.into_bytes()),
            },
        };
        Self { digest, content }
    }
}

/// Missing, or `null`: what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let Some(text) = Option::<Cow<'_, str>>::deserialize(deserializer)? else { return Ok(Vec::new()) };
    STANDARD.decode_to_vec(text.as_bytes()).map_err(|_| serde::de::Error::custom("a body is not base64"))
}

/// A transaction, also one of gRPC.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Transaction {
    pub metadata: Metadata,
    pub request: Message,
    pub response: Message,
    #[serde(rename = "transaction_time")]
    pub time: String,
    pub duration_ms: f64,
    pub direction: String,
    pub damage: Vec<Damage>,
    pub service: Option<String>,
    pub method: Option<String>,
    pub grpc_status: Option<u32>,
    pub grpc_status_name: String,
    pub grpc_message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub process_id: String,
    pub process_exe: String,
    pub container_name: String,
    pub container_image: String,
    pub pod_name: String,
    pub pod_namespace: String,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub request_id: String,
    pub connection_id: String,
    pub endpoint_id: String,
    #[serde(deserialize_with = "or_default")]
    pub tags: Vec<String>,
    pub socket: Option<String>,
}

/// A request or a response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    pub method: String,
    pub url: String,
    pub scheme: String,
    pub path: String,
    pub authority: String,
    pub protocol: String,
    pub status: Option<u16>,
    pub content_type: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub headers: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub header_list: BTreeMap<String, Vec<String>>,
    #[serde(deserialize_with = "base64")]
    pub body: Vec<u8>,
    /// On the wire.
    pub body_size: Option<u64>,
    pub body_decoded: Option<String>,
    pub truncated: Option<String>,
    pub messages: Option<Messages>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Messages {
    pub dialect: String,
    pub count: u64,
    pub list: Vec<Part>,
}

/// One message of a body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    pub time: String,
    pub kind: String,
    pub compressed: bool,
    pub size: u64,
    pub start: u64,
    pub length: u64,
}

/// A range of a stream that is missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Damage {
    pub cause: String,
    pub part: String,
    pub start: u64,
    pub end: u64,
}

impl Transaction {
    /// Other objects are JSON as well.
    fn is_one(&self) -> bool {
        let request = !self.request.method.is_empty() || !self.request.url.is_empty() || self.service.is_some();
        request && (self.response.status.is_some() || self.service.is_some() || !self.metadata.connection_id.is_empty())
    }

    /// With what objects of gRPC say by pseudo header fields alone.
    fn completed(mut self) -> Self {
        let pseudo = |message: &Message, name: &str| message.headers.get(name).cloned().unwrap_or_default();
        let grpc = self.service.is_some();
        if self.response.status.is_none() {
            self.response.status = pseudo(&self.response, ":status").parse().ok();
        }
        let tag = self.metadata.tags.iter().find_map(|tag| tag.strip_prefix("protocol:")).map(str::to_owned);
        let request = &mut self.request;
        if request.protocol.is_empty() {
            request.protocol = tag.filter(|protocol| protocol.starts_with("http")).unwrap_or_default();
        }
        for (field, name) in [
            (&mut request.method, ":method"),
            (&mut request.authority, ":authority"),
            (&mut request.path, ":path"),
            (&mut request.scheme, ":scheme"),
        ] {
            if field.is_empty() {
                *field = request.headers.get(name).cloned().unwrap_or_default();
            }
        }
        if grpc && request.path.is_empty() {
            let (service, method) = (self.service.as_deref(), self.method.as_deref());
            request.path = format!("/{}/{}", service.unwrap_or_default(), method.unwrap_or_default());
        }
        if grpc && request.method.is_empty() {
            request.method = "POST".into();
        }
        if request.url.is_empty() && !request.authority.is_empty() {
            let scheme = if request.scheme.is_empty() { "https" } else { &request.scheme };
            request.url = format!("{scheme}://{}{}", request.authority, request.path);
        }
        self
    }

    /// `http1` or `http2`.
    pub(super) fn is_http2(&self) -> bool {
        self.request.protocol == "http2" || (self.request.protocol.is_empty() && self.service.is_some())
    }
}

impl Message {
    /// Header fields, without pseudo ones; a repeated one as often as it came.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.headers.iter().filter(|(name, _)| !name.starts_with(':'));
        named.flat_map(|(name, joined)| {
            let list = self.header_list.get(name).filter(|list| !list.is_empty());
            let values: Vec<&str> = match list {
                Some(list) => list.iter().map(String::as_str).collect(),
                None => vec![joined.as_str()],
            };
            values.into_iter().map(move |value| (name.as_str(), value))
        })
    }

    /// The first value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether header fields were captured.
    pub(super) fn has_fields(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Type of the body, without parameters, in lower case.
    pub(super) fn media_type(&self) -> String {
        let whole = self.content_type.as_deref().or_else(|| self.field("content-type")).unwrap_or_default();
        whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The body without content codings, and which were undone, here or when it was captured.
    pub(super) fn plain(&self) -> (Cow<'_, [u8]>, Option<&str>) {
        if let Some(codings) = &self.body_decoded {
            return (Cow::Borrowed(&self.body), Some(codings));
        }
        let codings = self.field("content-encoding");
        let undone = codings.and_then(|codings| ringtap_batch::decoded(codings, &self.body, PLAIN_MAX));
        match undone {
            Some(plain) => (Cow::Owned(plain), codings),
            None => (Cow::Borrowed(&self.body), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Content {
        Object::read(Loaded { digest: String::new(), bytes: text.into() }).content
    }

    #[test]
    fn objects_are_told_apart() {
        let guide = include_str!("../../tests/golden/guide-object.json");
        let Content::Transaction(of_guide) = read(guide) else { panic!("the guide's sample is a transaction") };
        assert_eq!((of_guide.response.status, of_guide.is_http2()), (Some(500), true));
        assert!(matches!(read(r#"{"id":"c","messages":[],"request":"r"}"#), Content::Json(_)));
        assert!(matches!(read(r#"{"matches":[],"request_id":"r"}"#), Content::Json(_)));
        assert!(matches!(read("HTTP Transaction\n"), Content::Other(_)));
        assert!(matches!(read(""), Content::Other(_)));
        let broken = r#"{"request":{"method":"GET","url":"a","body":"%"},"response":{"status":200}}"#;
        assert!(matches!(read(broken), Content::Json(_)), "shown as it is");
    }

    #[test]
    fn calls_have_their_url_in_pseudo_fields() {
        let call = r#"{"metadata":{"tags":null},"service":"s.S","method":"M","grpc_status":5,
            "request":{"headers":{":authority":"h:1",":scheme":"http",":path":"/s.S/M",":method":"POST"}},
            "response":{"headers":{":status":"200"}}}"#;
        let Content::Transaction(call) = read(call) else { panic!("a call is a transaction") };
        assert_eq!(call.request.url, "http://h:1/s.S/M");
        assert_eq!((call.response.status, call.is_http2()), (Some(200), true));
    }

    #[test]
    fn codings_are_undone_once() {
        let message = |decoded: Option<&str>| Message {
            headers: [("Content-Encoding".to_owned(), "br".to_owned())].into(),
            body: vec![0x8b, 0x02, 0x80, b'a', b' ', b'b', b'o', b'd', b'y', 0x03],
            body_decoded: decoded.map(str::to_owned),
            ..Message::default()
        };
        assert_eq!(message(None).plain(), (Cow::Borrowed(&b"a body"[..]), Some("br")));
        assert_eq!(message(Some("br")).plain().0.len(), 10);
    }
}
