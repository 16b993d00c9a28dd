//! The `access_url` of an object.

/// Replaces `{{DIGEST}}`, `{{BUCKET}}`, `{{ENDPOINT}}` and `{{SCHEME}}`; other names stay as they are.
#[must_use]
pub fn access_url(template: &str, digest: &str, bucket: &str, endpoint: &str, scheme: &str) -> String {
    let values = [("DIGEST", digest), ("BUCKET", bucket), ("ENDPOINT", endpoint), ("SCHEME", scheme)];
    values.iter().fold(template.to_owned(), |url, (name, value)| url.replace(&format!("{{{{{name}}}}}"), value))
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_names_are_replaced() {
        let url = super::access_url(
            "{{SCHEME}}://{{ENDPOINT}}/{{BUCKET}}/{{DIGEST}}?{{OTHER}}",
            "d1",
            "b",
            "e:9000",
            "https",
        );
        assert_eq!(url, "https://e:9000/b/d1?{{OTHER}}");
    }
}
