//! How long a service wants to be left alone.

use std::time::Duration;

use hyper::{HeaderMap, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

/// No service is left alone for longer, whatever it says.
pub const AFTER_MAX: Duration = Duration::from_hours(1);

/// What the field `Retry-After` of an answer asks for; `None`: nothing that can be read.
#[must_use]
pub fn after(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(header::RETRY_AFTER)?.to_str().ok()?)
}

/// The same of its value: seconds, or a date.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let after = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
            Duration::try_from(then.duration_since(Timestamp::now())).unwrap_or_default()
        }
    };
    Some(after.min(AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_seconds_say_when_to_come_back() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().expect("a value"))]);
            after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("99999999999"), Some(AFTER_MAX));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Tue, 06 Nov 2390 08:49:37 GMT"), Some(AFTER_MAX));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-3"), None);
    }
}
