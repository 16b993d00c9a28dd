use super::*;

const GOOD: &str = r#"
- program: "Program 1.0"
  build_id: "00ff10"
  library: openssl
  functions:
    SSL_read: {at: 0x1000, code: "000102030405060708090a0b0c0d0e0f"}
    SSL_write: {at: 8192, code: "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"}
"#;

#[test]
fn what_is_brought_can_be_read_and_is_unique() {
    let mut ids: Vec<&[u8]> = KNOWN.iter().map(|entry| entry.build_id.as_slice()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), KNOWN.len());
}

#[test]
fn entries_are_written_as_they_are_read() {
    let entries = parse("x", GOOD).expect("it is right");
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((entry.build_id.as_slice(), entry.library.name), (&[0, 0xff, 0x10][..], "openssl"));
    assert_eq!(
        entry.functions.iter().map(|f| (f.name, f.address)).collect::<Vec<_>>(),
        [("SSL_read", 0x1000), ("SSL_write", 0x2000)]
    );
    let again = parse("x", &entry.to_string()).expect("it is right");
    assert_eq!(again[0].to_string(), entry.to_string());
    assert!(parse("x", "").expect("nothing").is_empty() && parse("x", "# nothing\n").expect("nothing").is_empty());
}

/// What is wrong is said with its file and line.
#[test]
fn faults_are_named_with_their_line() {
    let check = |from: &str, to: &str, expected: &[&str]| {
        let error = parse("own.yaml", &GOOD.replacen(from, to, 1)).expect_err("it is wrong");
        assert!(error.starts_with("own.yaml:") && expected.iter().all(|part| error.contains(part)), "{error}");
    };
    check("openssl", "nossl", &["own.yaml:2:", "`nossl` is not a library that is known", "gnutls"]);
    check("00ff10", "00ff1", &["own.yaml:2:", "Program 1.0", "build id"]);
    check("SSL_write:", "SSL_free:", &["own.yaml:2:", "SSL_write is missing"]);
    check("SSL_write:", "SSL_wrote:", &["SSL_write is missing"]);
    check("    SSL_read:", "    SSL_peek: {at: 1, code: \"\"}\n    SSL_read:", &["SSL_peek", "no probe"]);
    check("000102", "zz0102", &["SSL_read", "hexadecimal"]);
    check("000102030405060708090a0b0c0d0e0f", "0001", &["SSL_read", "2 bytes", "at least 16"]);
    check("at: 0x1000", "at: here", &["own.yaml:6:"]);
    check("library:", "librari: x\n  library:", &["librari", "unknown field"]);
    check("- program", "- [", &["own.yaml"]);
}
