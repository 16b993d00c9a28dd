//! `{{NAME}}` in endpoints.

/// Replaces `{{NAME}}` by the environment; a name that is not set stays as it stands.
#[must_use]
pub fn from_environment(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        out.push_str(before);
        out.push_str(&std::env::var(name.trim()).unwrap_or_else(|_| format!("{{{{{name}}}}}")));
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::from_environment;

    #[test]
    fn names_that_are_not_set_stay() {
        assert_eq!(from_environment("{{RINGTAP_NO_SUCH}}:4317"), "{{RINGTAP_NO_SUCH}}:4317");
        assert!(from_environment("a{{ PATH }}b{{").starts_with('a') && !from_environment("{{PATH}}").contains("{{"));
    }
}
