//! What a transaction says as a gRPC call: service and method by its path, status by its trailers.

use std::borrow::Cow;

use crate::transactions::Transactions;

/// A gRPC call.
#[derive(Debug, PartialEq, Eq)]
pub struct Grpc<'a> {
    /// Full name of the service.
    pub service: &'a str,
    /// Name of the method.
    pub method: &'a str,
    /// Status, if the response has told it.
    pub status: Option<u8>,
    /// Message of the status, decoded.
    pub message: Cow<'a, str>,
}

const STATUSES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

impl<'a> Grpc<'a> {
    /// The call that a row is, if it is one.
    #[must_use]
    pub fn of(t: &Transactions<'a>, row: usize) -> Option<Self> {
        let content_type = Transactions::header(t.request_headers, row, "content-type")?;
        if !content_type.starts_with("application/grpc") {
            return None;
        }
        let path = t.path.value(row);
        let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path));
        let told = |name| Transactions::header(t.response_headers, row, name);
        let message = told("grpc-message").map_or(Cow::Borrowed(""), |text| percent_decoded(text));
        Some(Self { service, method, status: told("grpc-status").and_then(|n| n.trim().parse().ok()), message })
    }

    /// Name of the status.
    #[must_use]
    pub fn status_name(&self) -> &'static str {
        self.status.and_then(|n| STATUSES.get(usize::from(n))).map_or("", |(name, _)| name)
    }

    /// The HTTP status that says the same; `otherwise` for a call without a status, or with one that is not known.
    #[must_use]
    pub fn http_status(&self, otherwise: u16) -> u16 {
        self.status.and_then(|n| STATUSES.get(usize::from(n))).map_or(otherwise, |(_, http)| *http)
    }
}

fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    // A plus is a plus here.
    let plain = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(plain.as_bytes()).next().map_or(Cow::Borrowed(text), |(text, _)| text.into_owned().into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_are_decoded() {
        assert_eq!(super::percent_decoded("a%20b+c=d&e%C3%A9"), "a b+c=d&eé");
    }
}
