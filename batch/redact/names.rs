//! Names of header fields, parameters and members whose values are taken for credentials.

/// Ends of names, without hyphens, underscores and dots.
const ENDS: [&str; 22] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "signature",
    "credential",
    "credentials",
    "jwt",
    "authorization",
    "passcode",
    "applicationkey",
    "masterkey",
    "sessionkey",
    "encryptionkey",
    "consumerkey",
    "accountkey",
];

/// `user[Password_Confirmation]2` as `userpassword`.
fn plain(name: &str) -> String {
    let joined: String =
        name.chars().filter(|c| !matches!(c, '-' | '_' | '.' | '[' | ']')).map(|c| c.to_ascii_lowercase()).collect();
    let bare = joined.trim_end_matches(|c: char| c.is_ascii_digit());
    let bare = bare.strip_suffix("confirmation").or_else(|| bare.strip_suffix("confirm")).unwrap_or(bare);
    bare.to_owned()
}

fn ends_like_a_secret(plain: &str) -> bool {
    ENDS.iter().any(|end| plain.ends_with(end))
}

/// In lower case.
pub(super) fn is_secret_header(name: &str) -> bool {
    let plain = plain(name);
    ends_like_a_secret(&plain)
        || matches!(
            plain.as_str(),
            "xauth"
                | "xsentryauth"
                | "sessionid"
                | "xsessionid"
                | "xsession"
                | "xauthkey"
                | "xfunctionskey"
                | "ocpapimsubscriptionkey"
                | "authentication"
        )
}

/// In lower case.
pub(super) fn is_secret_parameter(name: &str) -> bool {
    let plain = plain(name);
    ends_like_a_secret(&plain)
        || matches!(plain.as_str(), "key" | "sig" | "auth" | "pwd" | "pass" | "sid" | "session" | "sessionid")
}

/// In any case. `key` alone is half of every other pair in JSON.
pub(super) fn is_secret_member(name: &str) -> bool {
    let plain = plain(name);
    ends_like_a_secret(&plain) || matches!(plain.as_str(), "pwd" | "pass" | "sessionid")
}
