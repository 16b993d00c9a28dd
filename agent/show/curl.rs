//! A curl command that sends a request again.

use std::fmt::Write as _;

use base64_simd::STANDARD;
use ringtap_batch::redact::MASK;

use super::{
    object::{Message, Transaction},
    text::as_text,
    visible::is_odd,
};

/// Bytes of a body that stand in an argument; the kernel takes 128 KiB.
const ARGUMENT_MAX: usize = 64 << 10;
/// From here on curl asks with `Expect` before it sends a body, by its version.
const EXPECTS: usize = 1024;
/// What is said to the next hop alone.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// A command for a POSIX shell, and why it may not do the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub text: String,
    pub warnings: Vec<String>,
}

/// The command that sends a request again.
///
/// # Errors
///
/// Why there is none.
pub(super) fn command(t: &Transaction) -> Result<Command, String> {
    let address = Address::of(t)?;
    let mut made = Made { options: Vec::new(), warnings: Vec::new() };
    if t.request.method == "CONNECT" {
        return Err("it asks a proxy for a tunnel; curl does that by itself, with --proxytunnel".into());
    }
    let websocket = t.request.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let body = if websocket { None } else { made.body(t) };
    made.method(&t.request.method, body.is_some())?;
    made.address(t, &address);
    made.fields(t, &address.authority, websocket, body.as_ref().map(|body| body.len));
    if websocket {
        made.warnings.push("it opens a WebSocket; what went over that is not sent again".into());
    }
    made.masks(t);
    Ok(made.finish(&address.url, body.as_ref()))
}

/// Where a request goes.
struct Address {
    url: String,
    authority: String,
    /// What stands behind the authority.
    target: String,
}

impl Address {
    fn of(t: &Transaction) -> Result<Self, String> {
        let url = &t.request.url;
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        let Some(rest) = scheme.and_then(|scheme| url.get(scheme.len()..)) else {
            return Err("it has no url of http or https".into());
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let fit = |c: char| c.is_alphanumeric() || "-._~%!$&'()*+,;=:@[]".contains(c);
        // On a Unix socket a request need not name a host.
        let over_unix = t.metadata.endpoint_id.starts_with("unix:");
        if (authority.is_empty() && !over_unix) || !authority.chars().all(fit) {
            return Err("its url names no host that can be asked".into());
        }
        let scheme = scheme.unwrap_or_default();
        let host = if authority.is_empty() { "localhost" } else { authority };
        // Characters that nobody would see in a command stand as curl would send them anyway, or nearly.
        let seen: String = target.chars().map(percent).collect();
        let slash = if seen.starts_with('/') { "" } else { "/" };
        let whole = !seen.contains('#') && t.request.path != "*";
        let url = if whole { format!("{scheme}{host}{slash}{seen}") } else { format!("{scheme}{host}/") };
        Ok(Self { url, authority: authority.to_owned(), target: target.to_owned() })
    }
}

fn percent(c: char) -> String {
    if !is_odd(c) && c != ' ' {
        return c.into();
    }
    c.encode_utf8(&mut [0; 4]).bytes().fold(String::new(), |mut text, byte| {
        // Never fails: a string takes everything.
        _ = write!(text, "%{byte:02X}");
        text
    })
}

/// A body, as it gets into the command.
struct Body {
    len: usize,
    /// What writes it into curl's standard input; empty: it is an argument.
    from: String,
    argument: String,
}

struct Made {
    options: Vec<String>,
    warnings: Vec<String>,
}

impl Made {
    fn option(&mut self, name: &str, value: &str) {
        match quote(value) {
            Some(value) => self.options.push(format!("{name} {value}")),
            None => self.warnings.push(format!("{name} is left out, no argument can hold it")),
        }
    }

    fn body(&mut self, t: &Transaction) -> Option<Body> {
        let request = &t.request;
        if request.truncated.is_some() {
            self.warnings.push("the body is not whole: it was not captured to its end".into());
        }
        if request.method == "HEAD" {
            return None;
        }
        let length = request.field("content-length").and_then(|length| length.trim().parse::<u64>().ok());
        if request.body.is_empty() {
            if length.is_some_and(|length| length > 0) || request.body_size.is_some_and(|size| size > 0) {
                self.warnings.push("the body was not captured (level `full` of `http_capture` has it)".into());
            }
            let is_sent = length == Some(0) && !matches!(request.method.as_str(), "GET" | "HEAD");
            return is_sent.then(|| Body { len: 0, from: String::new(), argument: "--data-raw ''".into() });
        }
        if let Some(codings) = &request.body_decoded {
            self.warnings.push(format!("the body goes without its content coding ({codings}), in which it was sent"));
        }
        Some(Body::of(&request.body))
    }

    fn method(&mut self, method: &str, has_body: bool) -> Result<(), String> {
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err("its method is not one".into());
        }
        match (method, has_body) {
            ("GET", false) | ("POST", true) => {}
            ("HEAD", _) => self.options.push("--head".into()),
            _ => self.option("-X", method),
        }
        Ok(())
    }

    fn address(&mut self, t: &Transaction, Address { url, target, .. }: &Address) {
        let version = match (t.is_http2(), url.starts_with("https:")) {
            (true, true) => "--http2",
            (true, false) => "--http2-prior-knowledge",
            (false, _) => "--http1.1",
        };
        self.options.push(version.into());
        if let Some(path) = t.metadata.endpoint_id.strip_prefix("unix:") {
            match path.strip_prefix('@') {
                Some(name) => self.option("--abstract-unix-socket", name),
                None => self.option("--unix-socket", path),
            }
        }
        if url.contains(['[', ']', '{', '}']) {
            self.options.push("--globoff".into());
        }
        if url.contains("/.") {
            self.options.push("--path-as-is".into());
        }
        if t.request.path == "*" {
            self.option("--request-target", "*");
        } else if target.contains('#') {
            self.option("--request-target", target);
        }
        if target.contains(is_odd) {
            self.warnings.push("the url has characters that cannot be seen: they are percent-encoded".into());
        }
    }

    fn fields(&mut self, t: &Transaction, authority: &str, websocket: bool, body: Option<usize>) {
        let request = &t.request;
        if !request.has_fields() {
            self.warnings.push("header fields were not captured (levels `headers` and `full` have them)".into());
            return;
        }
        let named = connection_names(request);
        for (name, value) in request.fields() {
            let lower = name.to_ascii_lowercase();
            let trailers = lower == "te" && t.is_http2();
            let handshake = websocket && matches!(lower.as_str(), "connection" | "upgrade");
            let left_out = match lower.as_str() {
                "host" => value.eq_ignore_ascii_case(authority),
                "content-length" | "expect" => true,
                "content-encoding" => request.body_decoded.is_some(),
                _ => HOP_BY_HOP.contains(&lower.as_str()) || named.contains(&lower),
            };
            if !left_out || trailers || handshake {
                self.field(name, value);
            }
        }
        if request.field("accept-encoding").is_some() {
            self.options.push("--compressed".into());
        }
        // What curl would add by itself.
        let mut own = vec!["Accept", "User-Agent"];
        own.extend(body.map(|_| "Content-Type"));
        own.extend(body.filter(|len| *len >= EXPECTS).map(|_| "Expect"));
        for name in own {
            if name == "Expect" || request.field(name).is_none() {
                self.option("-H", &format!("{name}:"));
            }
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        if name.is_empty() || !name.bytes().all(is_token) || value.contains(['\r', '\n', '\0']) {
            self.warnings.push(format!("the header field `{name}` cannot be sent, and is left out"));
        } else if value.is_empty() {
            self.option("-H", &format!("{name};"));
        } else {
            self.option("-H", &format!("{name}: {value}"));
        }
    }

    /// Values that nobody has any more.
    fn masks(&mut self, t: &Transaction) {
        let request = &t.request;
        let mut masked: Vec<String> =
            request.fields().filter(|(_, value)| value.contains(MASK)).map(|(name, _)| name.to_owned()).collect();
        masked.dedup();
        if request.url.contains(MASK) {
            masked.insert(0, "the url".into());
        }
        if as_text(&request.body, true).is_some_and(|text| text.contains(MASK)) {
            masked.push("the body".into());
        }
        if !masked.is_empty() {
            let masked = masked.join(", ");
            self.warnings.push(format!("credentials are masked by {MASK} in {masked}: it will not work as it is"));
        }
    }

    fn finish(self, url: &str, body: Option<&Body>) -> Command {
        let Self { options, mut warnings } = self;
        let mut text = String::new();
        if let Some(from) = body.map(|body| &body.from).filter(|from| !from.is_empty()) {
            // Never fails: a string takes everything.
            _ = write!(text, "{from} | ");
        }
        match quote(url) {
            Some(url) => _ = write!(text, "curl {url}"),
            None => warnings.push("the url cannot be an argument".into()),
        }
        for option in options.iter().chain(body.map(|body| &body.argument)) {
            _ = write!(text, " \\\n  {option}");
        }
        Command { text, warnings }
    }
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        let text = as_text(bytes, false).filter(|text| !text.contains(|c| is_odd(c) && c != '\n' && c != '\t'));
        let (from, argument) = match text.map(single_quoted) {
            Some(quoted) if bytes.len() <= ARGUMENT_MAX => (String::new(), format!("--data-raw {quoted}")),
            Some(quoted) => (format!("printf %s {quoted}"), "--data-binary @-".into()),
            None => {
                let base64 = STANDARD.encode_to_string(bytes);
                (format!("printf %s '{base64}' | base64 -d"), "--data-binary @-".into())
            }
        };
        Self { len: bytes.len(), from, argument }
    }
}

/// Names that `Connection` makes hop-by-hop.
fn connection_names(request: &Message) -> Vec<String> {
    let fields = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    fields.flat_map(|(_, value)| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text as one word of a POSIX shell, in which everything can be seen. `None`: it holds a zero byte, as no argument can.
fn quote(text: &str) -> Option<String> {
    if text.contains('\0') {
        return None;
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/:@%+,".contains(&byte)) {
        return Some(text.to_owned());
    }
    if !text.contains(is_odd) {
        return Some(single_quoted(text));
    }
    // A substitution loses the line ends at its end.
    let ends = text.len() - text.trim_end_matches('\n').len();
    let (inner, ends) = text.split_at(text.len() - ends);
    let mut quoted = String::from("\"$(printf '");
    for (at, c) in inner.char_indices() {
        // At the beginning it would be taken for an option.
        let plain = c.is_alphanumeric() || " -._~/:;,@+=?&#()<>[]{}|^*".contains(c);
        let plain = plain && (at > 0 || c != '-');
        if plain && !is_odd(c) {
            quoted.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Never fails: a string takes everything.
                _ = write!(quoted, "\\{byte:03o}");
            }
        }
    }
    quoted.push_str("')\"");
    if !ends.is_empty() {
        quoted.push_str(&single_quoted(ends));
    }
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use std::process;

    use proptest::prelude::*;

    use super::*;

    /// What a shell makes of a word.
    fn by_shell(word: &str) -> Vec<u8> {
        let output = process::Command::new("sh").args(["-c", &format!("printf %s {word}")]).output().expect("a shell");
        assert!(output.status.success(), "{word}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn words_are_quoted_as_far_as_they_need() {
        for (text, quoted) in [
            ("https://a/b%20c", "https://a/b%20c"),
            ("", "''"),
            ("it's $HOME `x` \\ !", r"'it'\''s $HOME `x` \ !'"),
            ("a\u{1b}[31m!", "\"$(printf 'a\\033[31m\\041')\""),
            ("\u{202e}", "\"$(printf '\\342\\200\\256')\""),
            ("-\u{1b}-", "\"$(printf '\\055\\033-')\""),
        ] {
            assert_eq!(quote(text).as_deref(), Some(quoted));
        }
        assert_eq!(quote("a\0b"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_shell_reads_what_was_quoted(
            text in prop_oneof![any::<String>(), "[ -~\n]{0,40}", "['\"$`!\\\\%\n\t\u{1b}\u{202e}a]{0,20}"]
        ) {
            let text = text.replace('\0', "");
            let quoted = quote(&text).expect("no zero byte");
            prop_assert_eq!(by_shell(&quoted), text.as_bytes());
            prop_assert!(!quoted.contains(|c| is_odd(c) && c != '\n'), "{:?}", quoted);
        }

        #[test]
        fn a_shell_sends_what_was_the_body(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..200),
            any::<String>().prop_map(String::into_bytes),
        ]) {
            let body = Body::of(&bytes);
            let sent = match body.argument.strip_prefix("--data-raw ") {
                Some(word) => by_shell(word),
                None => process::Command::new("sh").args(["-c", &body.from]).output().expect("a shell").stdout,
            };
            prop_assert_eq!(sent, bytes);
        }
    }

    fn request(url: &str, fields: &[(&str, &str)]) -> Transaction {
        let mut t = Transaction::default();
        (t.request.method, t.request.url) = ("GET".into(), url.into());
        t.request.headers = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        t
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        for url in ["", "file:///etc/passwd", "http:///x", "http://a b/", "http://a\\b/", "gopher://a/"] {
            command(&request(url, &[])).expect_err(url);
        }
    }

    #[test]
    fn versions_sockets_and_odd_targets_have_their_options() {
        let has = |t: &Transaction, option: &str| {
            let made = command(t).expect("a command");
            assert!(made.text.contains(option), "{option} in {}", made.text);
        };
        let mut t = request("https://a/[x]/../y", &[("Te", "trailers"), ("Connection", "x-own"), ("X-Own", "1")]);
        t.request.protocol = "http2".into();
        for option in ["--http2 ", "--globoff", "--path-as-is", "'Te: trailers'"] {
            has(&t, option);
        }
        assert!(!command(&t).expect("a command").text.contains("X-Own"));
        t.request.url = "http://a/".into();
        has(&t, "--http2-prior-knowledge");
        t.request.url = "http://a/x#y".into();
        has(&t, "--request-target '/x#y'");
        let mut unix = request("http:///x", &[("Accept", "a")]);
        unix.metadata.endpoint_id = "unix:/run/x.sock".into();
        has(&unix, "--unix-socket /run/x.sock");
        has(&unix, "http://localhost/x");
    }

    #[test]
    fn masks_and_gaps_are_told() {
        let mut t = request("https://a/x?key=****cdef", &[("Authorization", "Bearer ****"), ("Content-Length", "5")]);
        t.request.method = "POST".into();
        let made = command(&t).expect("a command");
        let told = made.warnings.join("\n");
        assert!(told.contains("masked by **** in the url, Authorization"), "{told}");
        assert!(told.contains("the body was not captured"), "{told}");
    }
}
