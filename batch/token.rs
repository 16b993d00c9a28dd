//! Which credential a request carried, without the credential: a mask, a hash, where it was, of what kind.

use sha2::{Digest as _, Sha256};

use crate::objects::hex;

/// A credential that was seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) mask: String,
    pub(crate) hash: String,
    pub(crate) source: &'static str,
    pub(crate) kind: &'static str,
}

const SOURCES: [&str; 5] = ["Authorization", "X-API-Key", "Api-Key", "APIKey", "X-Auth-Token"];
/// Characters that a mask leaves readable, of tokens that are at least three times as long.
const READABLE: usize = 4;

/// The first credential in the order of [`SOURCES`].
pub(crate) fn find<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Token> {
    let (source, value) = SOURCES.iter().find_map(|name| Some((*name, header(name)?)))?;
    let (scheme, secret) = match value.split_once(' ') {
        Some((scheme, secret)) if source == "Authorization" => (scheme, secret.trim()),
        _ => ("", value),
    };
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => "bearer",
        "basic" => "basic",
        "digest" => "digest",
        "" if source != "Authorization" => "api_key",
        _ => "other",
    };
    let hash = hex(&Sha256::digest(secret));
    Some(Token { mask: mask(secret), hash, source, kind })
}

/// The last characters of a long secret.
pub(crate) fn mask(secret: &str) -> String {
    let characters = secret.chars().count();
    let readable = if characters >= 3 * READABLE { READABLE } else { 0 };
    let tail: String = secret.chars().skip(characters - readable).collect();
    format!("****{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_hashed() {
        let token = find(|name| (name == "Authorization").then_some("Bearer abcdefghijklmnop")).expect("there is one");
        assert_eq!((token.mask.as_str(), token.source, token.kind), ("****mnop", "Authorization", "bearer"));
        assert_eq!(token.hash, "f39dac6cbaba535e2c207cd0cd8f154974223c848f727f98b3564cea569b41cf");
        let short = find(|name| (name == "Api-Key").then_some("abc")).expect("there is one");
        assert_eq!((short.mask.as_str(), short.kind), ("****", "api_key"));
        assert_eq!(find(|_| None), None);
    }
}
