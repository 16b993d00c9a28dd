//! What a collector's answer means, by the rules of OTLP.

use std::time::Duration;

use base64_simd::STANDARD_NO_PAD;
use hyper::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use tonic::{Code, Status};

use super::{
    super::retry_after::{self, AFTER_MAX},
    wire::FRAME,
};

/// Bytes of a collector's words that are repeated.
const WORDS_MAX: usize = 300;
const DETAILS: &str = "grpc-status-details-bin";
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was taken, but for as many records as are told here.
    Taken(ExportLogsPartialSuccess),
    /// It is longer than the collector takes.
    TooLarge(String),
    /// To send it again changes nothing.
    Refused(String),
    /// It can be sent again, after the time that the collector asked for.
    Later(String, Option<Duration>),
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl RpcStatus {
    /// When the sender may try again; `None`: it does not say that it may.
    fn retry(&self) -> Option<Duration> {
        let info = self.details.iter().find(|any| any.type_url.rsplit('/').next() == Some(RETRY_INFO))?;
        let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay.unwrap_or_default();
        let seconds = u64::try_from(delay.seconds).unwrap_or_default();
        let delay = Duration::new(seconds, u32::try_from(delay.nanos).unwrap_or_default().min(999_999_999));
        Some(delay.min(AFTER_MAX))
    }
}

/// An answer over HTTP.
pub(super) fn http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let is_protobuf =
        headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/x-protobuf"));
    if status.is_success() {
        let response = is_protobuf.then(|| ExportLogsServiceResponse::decode(body).ok()).flatten();
        return Answer::Taken(response.and_then(|response| response.partial_success).unwrap_or_default());
    }
    let words = match RpcStatus::decode(body) {
        Ok(told) if is_protobuf => told.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    without_success(status, headers, &words)
}

fn without_success(status: StatusCode, headers: &HeaderMap, words: &str) -> Answer {
    let reason = told(&status.to_string(), words);
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Later(reason, retry_after::after(headers)),
        StatusCode::PAYLOAD_TOO_LARGE => Answer::TooLarge(reason),
        _ => Answer::Refused(reason),
    }
}

/// An answer over gRPC. Its status stands in the trailers, or in the header of an answer that is nothing else.
pub(super) fn grpc(status: StatusCode, headers: &HeaderMap, body: &[u8], trailers: Option<&HeaderMap>) -> Answer {
    if status != StatusCode::OK {
        return without_success(status, headers, "");
    }
    let said = trailers.filter(|trailers| trailers.contains_key(Status::GRPC_STATUS)).unwrap_or(headers);
    let details = said.get(DETAILS).and_then(|value| {
        let text = value.as_bytes().trim_ascii();
        let unpadded = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
        RpcStatus::decode(&*STANDARD_NO_PAD.decode_to_vec(unpadded).ok()?).ok()
    });
    // Details that are not base64 would be a panic there.
    let mut rest = said.clone();
    rest.remove(DETAILS);
    let Some(status) = Status::from_header_map(&rest) else {
        return Answer::Refused("the answer has no status of gRPC".into());
    };
    let reason = told(&format!("{:?}", status.code()), status.message());
    let retry = details.and_then(|details| details.retry());
    match status.code() {
        Code::Ok => Answer::Taken(partial_success(body)),
        Code::ResourceExhausted | Code::OutOfRange if is_about_length(status.message()) => Answer::TooLarge(reason),
        Code::ResourceExhausted if retry.is_none() => Answer::Refused(reason),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted => Answer::Later(reason, retry),
        _ => Answer::Refused(reason),
    }
}

/// As the implementations of gRPC in Go, C++, Java and Rust say it.
fn is_about_length(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than", "too large", "exceeds maximum"].iter().any(|words| message.contains(words))
}

/// Of an answer that cannot be read, only that it is one is known: everything was taken.
fn partial_success(body: &[u8]) -> ExportLogsPartialSuccess {
    let message = body.get(FRAME..).filter(|_| body[0] == 0).unwrap_or_default();
    ExportLogsServiceResponse::decode(message).ok().and_then(|response| response.partial_success).unwrap_or_default()
}

fn told(status: &str, words: &str) -> String {
    let words: String = words.trim().chars().take(WORDS_MAX).collect();
    if words.is_empty() { status.to_owned() } else { format!("{status}: {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_an_answer_does_no_harm() {
        let trailers = HeaderMap::from_iter([
            (header::HeaderName::from_static("grpc-status"), "8".parse().expect("a value")),
            (header::HeaderName::from_static(DETAILS), "!".parse().expect("a value")),
        ]);
        let none = HeaderMap::new();
        let answer = grpc(StatusCode::OK, &none, b"\x01", Some(&trailers));
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        assert!(matches!(grpc(StatusCode::OK, &none, b"", None), Answer::Refused(_)));
        let ok =
            HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), "0".parse().expect("a value"))]);
        for body in [&b""[..], b"\0", b"\x01\0\0\0\x02\x0a\x05", b"\0\0\0\0\x01\xff"] {
            assert!(matches!(grpc(StatusCode::OK, &none, body, Some(&ok)), Answer::Taken(_)), "{body:?}");
        }
    }
}
