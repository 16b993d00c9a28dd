//! `{{NAME}}` in endpoints.

/// Replaces `{{NAME}}` by the environment.
///
/// # Errors
///
/// The name of the variable that is not set.
pub fn from_environment(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        out.push_str(before);
        let name = name.trim();
        out.push_str(&std::env::var(name).map_err(|_| name.to_owned())?);
        rest = behind;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::from_environment;

    #[test]
    fn names_are_replaced_or_told() {
        assert_eq!(from_environment("{{RINGTAP_NO_SUCH}}:4317"), Err("RINGTAP_NO_SUCH".to_owned()));
        let path = std::env::var("PATH").expect("there is one");
        assert_eq!(from_environment("a{{ PATH }}b{{"), Ok(format!("a{path}b{{{{")));
    }
}
