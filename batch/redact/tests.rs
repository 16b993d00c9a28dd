//! What is masked, and what is left as it is.

use super::*;

fn json(body: &str, paths: &[&str]) -> String {
    let paths: Vec<JsonPath> = paths.iter().map(|path| path.parse().expect("a path")).collect();
    json::mask(body.as_bytes(), &paths, true)
        .map_or_else(|| body.to_owned(), |out| String::from_utf8(out).expect("text"))
}

#[test]
fn header_fields_keep_name_and_scheme() {
    let redaction = Redaction::default().with_names(&["X-Own".into()], &[]);
    for (name, value, expected) in [
        ("Authorization", "Bearer abcdefghijklmnop", "Bearer ****mnop"),
        ("authorization", "Basic dXNlcjpwYXNzd29yZA==", "Basic ****"),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=ab", "AWS4-HMAC-SHA256 ****"),
        ("Cookie", "session=0123456789abcdef; theme=dark", "session=****cdef; theme=****"),
        ("Set-Cookie", "sid=0123456789abcdef; Path=/; HttpOnly", "sid=****cdef; Path=/; HttpOnly"),
        ("X-Api-Key", "short", "****"),
        ("X-Amz-Security-Token", "0123456789abcdef", "****cdef"),
        ("X-Own", "0123456789abcdef", "****cdef"),
        (
            "Referer",
            "https://u:pw@a.example/x?token=0123456789abcdef&page=2",
            "https://u:****@a.example/x?token=****cdef&page=2",
        ),
        ("X-Note", "see AKIAIOSFODNN7EXAMPLE there", "see ****MPLE there"),
        ("Content-Type", "application/json", "application/json"),
        ("X-Request-Id", "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
        ("ETag", "\"0123456789abcdef\"", "\"0123456789abcdef\""),
    ] {
        assert_eq!(redaction.header(name, value), expected, "{name}");
    }
}

#[test]
fn key_like_parameters_are_masked_where_they_stand() {
    let redaction = Redaction::default().with_names(&[], &["ticket".into()]);
    for (url, expected) in [
        ("https://a/x?api_key=0123456789abcdef&b=1", "https://a/x?api_key=****cdef&b=1"),
        ("https://a/x?b=1&X-Amz-Signature=0123456789abcdef#f", "https://a/x?b=1&X-Amz-Signature=****cdef#f"),
        ("https://a/x?%61pi%5Fkey=0123456789abcdef", "https://a/x?%61pi%5Fkey=****cdef"),
        ("https://a/x?ticket=1", "https://a/x?ticket=****"),
        ("https://a/x?page_size=1&keyword=k", "https://a/x?page_size=1&keyword=k"),
        ("https://token-only@a/x", "https://****@a/x"),
        ("https://a/mail@b/x", "https://a/mail@b/x"),
    ] {
        assert_eq!(redaction.url(url), expected);
    }
    assert_eq!(Redaction::off().url("https://a/x?api_key=1"), "https://a/x?api_key=1");
}

#[test]
fn members_are_masked_and_the_rest_stays_byte_for_byte() {
    let body = r#"{ "user":"ann" , "password" : "correct horse battery", "n":1.50, "max_tokens":7, "key":"v" }"#;
    assert_eq!(json(body, &[]), body.replace("correct horse battery", "****tery"));
    assert_eq!(
        json(r#"{"a":{"ssn":"123","n":[{"c":4111},{"c":"x"}]}}"#, &["$.a.ssn", "$.a.n[*].c"]),
        r#"{"a":{"ssn":"****","n":[{"c":"****"},{"c":"****"}]}}"#
    );
    assert_eq!(json(r#"[{"pin":1},{"x":{"pin":"2"}}]"#, &["$..pin"]), r#"[{"pin":"****"},{"x":{"pin":"****"}}]"#);
    assert_eq!(json(r#"{"a":{"b":[1,"c"]},"d":1}"#, &["$.a"]), r#"{"a":{"b":["****","****"]},"d":1}"#);
    assert_eq!(json("[1,2,3]", &["$[1]"]), r#"[1,"****",3]"#);
    assert_eq!(
        json(r#"{"tokens":["a"],"secret":["b","c"],"d":"e"}"#, &[]),
        r#"{"tokens":["a"],"secret":["****","****"],"d":"e"}"#
    );
    // Cut off, escaped, broken; fuzzing found the first three.
    assert_eq!(json(r#"{]"password":"s"}"#, &[]), r#"{]"password":"****"}"#);
    assert_eq!(json(r#"{"password":"s":1}"#, &[]), r#"{"password":"****":1}"#);
    assert_eq!(json(r#"{}"password":"s"}"#, &[]), r#"{}"password":"****"}"#);
    assert_eq!(json(r#"{"access_token":"abcdefghijklmnopq"#, &[]), r#"{"access_token":"****nopq"#);
    assert_eq!(json(r#"{"pass\u0077ord":"a\"b"}"#, &[]), r#"{"pass\u0077ord":"****"}"#);
    assert_eq!(json(r#"data: {"secret":"s"}"#, &[]), r#"data: {"secret":"****"}"#);
    // One quote too many ends with its line; numbers; what lies below a secret's name; a document in a text.
    assert_eq!(
        json("data: a 5\" disk\ndata: {\"secret\":\"s\"}", &[]),
        "data: a 5\" disk\ndata: {\"secret\":\"****\"}"
    );
    assert_eq!(json("{\"cut\":\"off\n{\"secret\":\"s\"}", &[]), "{\"cut\":\"off\n{\"secret\":\"****\"}");
    assert_eq!(json(r#"{"password":1234567890123,"password2":12}"#, &[]), r#"{"password":"****","password2":12}"#);
    assert_eq!(json(r#"{"credentials":{"value":"s"},"a":"b"}"#, &[]), r#"{"credentials":{"value":"****"},"a":"b"}"#);
    assert_eq!(
        json(r#"{"SecretString":"{\"password\":\"s\"}"}"#, &[]),
        r#"{"SecretString":"{\"password\":\"****\"}"}"#
    );
    let deep = format!("{}\"secret\":\"s\"", "{\"a\":[".repeat(500));
    assert!(!json(&deep, &["$.x"]).is_empty());
}

#[test]
fn paths_are_checked() {
    for path in ["", "a", "$", "$.", "$..", "$[", "$[x]", "$.a..", "$a"] {
        assert!(path.parse::<JsonPath>().is_err(), "{path}");
    }
    for path in ["$.a", "$['a b'].c", "$[0][*]", "$..a.b"] {
        assert!(path.parse::<JsonPath>().is_ok(), "{path}");
    }
}

#[test]
fn known_shapes_are_found_anywhere() {
    let redaction = Redaction::default();
    for secret in [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "xoxb-0123456789-abcdef",
        "sk-ant-api03-0123456789abcdefghij",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEow",
    ] {
        let text = format!("before {secret} after");
        let masked = redaction.text(&text);
        assert!(!masked.contains(&secret[..secret.len() - 4]), "{masked}");
        assert!(masked.starts_with("before "), "{masked}");
    }
    assert_eq!(redaction.text("task-force risk-based"), "task-force risk-based");
}

/// What the sender calls a body takes nothing away; what cannot be seen is withheld.
#[test]
fn labels_switch_nothing_off() {
    let redaction = Redaction::default();
    let shown = |body: &str, kind: &str| String::from_utf8(redaction.body_bytes(body.as_bytes(), kind)).expect("text");
    assert_eq!(shown(r#"{"access_token":"0123456789abcdef"}"#, "image/png"), r#"{"access_token":"****cdef"}"#);
    assert_eq!(shown("password=hunter2hunter2", ""), "password=****ter2");
    assert_eq!(shown("<a><password>hunter2hunter2</password></a>", "text/xml"), "<a><password>****ter2</password></a>");
    for (name, value, expected) in [
        ("DD-APPLICATION-KEY", "0123456789abcdef", "****cdef"),
        ("X-Session-Id", "0123456789abcdef", "****cdef"),
        ("X-Original-URL", "/a?access_token=0123456789abcdef", "/a?access_token=****cdef"),
        ("Location", "https://app/cb#access_token=0123456789abcdef", "https://app/cb#access_token=****cdef"),
        (
            "Sec-WebSocket-Protocol",
            "base64url.bearer.authorization.k8s.io.QWxhZGRpbjpvcGVu, v4.k8s",
            "****cGVu, v4.k8s",
        ),
    ] {
        assert_eq!(redaction.header(name, value), expected, "{name}");
    }
}

/// A pattern that matches emptiness adds nothing.
#[test]
fn empty_matches_are_passed_over() {
    let redaction = Redaction::off().with_patterns([Regex::new("z*").expect("a pattern")]);
    assert_eq!(redaction.text("abzzzzzzzzzzz"), "ab****");
}
