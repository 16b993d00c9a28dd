//! Configurations as users write them.

use super::*;

/// Every configuration of the guide, and the embedded one, is read without a problem.
#[test]
fn documented_configurations_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let mut files = 0;
    for file in std::fs::read_dir(folder).expect("there are samples") {
        let path = file.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        // Keys that a user would hold in the environment.
        let text = [
            "S3_ACCESS_KEY",
            "S3_SECRET_KEY",
            "MINIO_ACCESS_KEY",
            "MINIO_SECRET_KEY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "GCS_ACCESS_KEY",
            "GCS_SECRET_KEY",
        ]
        .iter()
        .fold(text, |text, name| text.replace(&format!("value: {name}"), "value: PATH"));
        let (_, warnings) =
            read(&path.display().to_string(), &text).unwrap_or_else(|p| panic!("{}: {p:?}", path.display()));
        assert_eq!(warnings, [], "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 6);
    assert!(embedded(std::path::Path::new("/var/lib/ringtap")).stores.objects.len() == 1);
}

fn refused(text: &str) -> String {
    let problems = read("qtap.yaml", text).expect_err("it should be refused");
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn warned(text: &str) -> String {
    let (_, warnings) = read("qtap.yaml", text).expect("it should be accepted");
    warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

const STACK: &str = "stacks:\n  s:\n    plugins: [{type: http_capture}]\n";

#[test]
fn unknown_keys_are_named_with_the_nearest_one() {
    let text = format!(
        "version: 2\ntap:\n  http: {{stack: s}}\n  filters:\n    grups: [qpoint]\n  ignore_lopback: true\n{STACK}"
    );
    assert_eq!(
        warned(&text),
        "qtap.yaml:5: unknown key `grups` in `tap.filters` is ignored; did you mean `groups`?\n\
         qtap.yaml:6: unknown key `ignore_lopback` in `tap` is ignored; did you mean `ignore_loopback`?"
    );
    let text = "tap:\n  http: {stack: s}\nstacks:\n  s:\n    plugins:\n      - type: http_capture\n        config:\n          levle: full\n";
    assert_eq!(
        warned(text),
        "qtap.yaml:8: unknown key `levle` in `stacks.s.plugins[0].config` is ignored; did you mean `level`?"
    );
}

#[test]
fn wrong_values_are_refused_with_place_and_choice() {
    let text = format!("version: 2\ntap:\n  direction: sideways\n  http:\n    stack: s\n{STACK}");
    let message = refused(&text);
    assert!(message.starts_with("qtap.yaml:3: tap.direction: "), "{message}");
    for part in ["`sideways`", "`all`", "`ingress`", "`egress-external`"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let message = refused("tap:\n  ignore_loopback: maybe\n");
    assert!(message.starts_with("qtap.yaml:2: tap.ignore_loopback: ") && message.contains("boolean"), "{message}");
    let message = refused(
        "stacks:\n  s:\n    plugins:\n      - type: http_capture\n        config:\n          level: loud\ntap: {http: {stack: s}}\n",
    );
    assert!(
        message.starts_with("qtap.yaml:6: stacks.s.plugins[0].config.level: ") && message.contains("`full`"),
        "{message}"
    );
    let message = refused("tap:\n  http: {stack: other}\nstacks: {s: {}}\n");
    assert_eq!(message, "qtap.yaml:2: tap.http.stack: found `other`; the stacks are: s");
}

#[test]
fn broken_yaml_and_rules_show_their_place() {
    assert!(refused("tap:\n  - a\n b: [").starts_with("qtap.yaml:"));
    let message = refused("rulekit:\n  macros:\n    - name: bad\n      expr: http.res.status >\n");
    assert!(message.starts_with("qtap.yaml:4: rulekit.macros[0].expr: line 1, column 18: "), "{message}");
}

#[test]
fn stores_say_what_they_lack() {
    let store = |lines: &str| format!("services:\n  object_stores:\n    - type: s3\n{lines}");
    assert!(refused(&store("      region: r\n")).contains("needs a `bucket`"));
    assert!(refused(&store("      bucket: b\n      access_key: {type: text, value: a}\n")).contains("belong together"));
    let keys = "      access_key: {type: text, value: a}\n      secret_key: {type: env, value: RINGTAP_NO_SUCH}\n";
    assert!(refused(&store(&format!("      bucket: b\n{keys}"))).contains("`RINGTAP_NO_SUCH` is not set"));
    let message = warned("services:\n  event_stores:\n    - type: kafka\n");
    assert!(
        message.starts_with("qtap.yaml:3: services.event_stores[0].type: found `kafka`") && message.contains("otel"),
        "{message}"
    );
    let message = refused("services:\n  event_stores:\n    - type: axiom\n      dataset: {type: text, value: d}\n");
    assert!(message.contains("needs a `token`"), "{message}");
}

#[test]
fn keys_of_s3_are_checked() {
    let store = |lines: &str| format!("services: {{object_stores: [{{type: s3, bucket: my-bucket, {lines}}}]}}\n");
    for (lines, expected) in [
        ("prefix: /a", ".prefix: found `/a`; expected letters"),
        ("prefix: 'a b/'", ".prefix: found `a b/`"),
        ("prefix: a/../b", ".prefix: found `a/../b`"),
        ("path_style: false, endpoint: '127.0.0.1:9000'", "no bucket can stand before the address `127.0.0.1`"),
        ("path_style: false, endpoint: '[::1]:9000'", "no bucket can stand before the address `[::1]`"),
        ("path_style: false, bucket: My_Bucket", "`My_Bucket` cannot be a part of a host's name"),
        ("server_side_encryption: rot13", "AES256"),
        ("kms_key_id: k", ".kms_key_id: goes with `server_side_encryption: aws:kms`"),
        ("presign_expiry: 8d", ".presign_expiry: found `8d`; expected 1s to 7d"),
        ("presign_expiry: soon", ".presign_expiry: `soon` is not a span of time"),
        ("session_token: {type: text, value: t}", "`session_token` goes with `access_key`"),
        ("tls: {insecure_skip_verify: true}", ".tls.insecure_skip_verify: an s3 store always checks certificates"),
        ("tls: {cert_file: /c, key_file: /k}", "shows no certificate of its own"),
    ] {
        let text = store(lines).replace("bucket: my-bucket, path_style: false, bucket", "path_style: false, bucket");
        let message = refused(&text);
        assert!(message.contains(expected), "{lines}: {message}");
    }
    let all = "prefix: dt=1/, path_style: no, storage_class: STANDARD_IA, server_side_encryption: aws:kms, kms_key_id: k, \
        presign_expiry: 2d, profile: p, access_url: '{{PRESIGNED}}'";
    let (config, warnings) = read("qtap.yaml", &store(all)).expect("accepted");
    assert!(warnings.iter().all(|warning| warning.message.contains("no stack is named")), "{warnings:?}");
    let crate::config::checked::ObjectStore::S3(s3) = &config.stores.objects[0].0 else { panic!("a bucket") };
    assert!(s3.keys.is_none() && s3.region.is_none() && !s3.path_style);
    assert_eq!(s3.presign_expiry, std::time::Duration::from_hours(48));
    // With its keys, and nothing else, it is as it was before there were these.
    let keys = "access_key: {type: text, value: a}, secret_key: {type: text, value: s}";
    let (config, _) = read("qtap.yaml", &store(keys)).expect("accepted");
    let crate::config::checked::ObjectStore::S3(s3) = &config.stores.objects[0].0 else { panic!("a bucket") };
    assert_eq!((s3.region.as_deref(), s3.prefix.as_str(), s3.path_style), (Some("us-east-1"), "", true));
    assert_eq!(format!("{:?}", s3.keys), "Some(Keys { .. })");
}

#[test]
fn rollups_say_what_is_wrong_with_them() {
    let rollups = |keys: &str| {
        format!("services:\n  object_stores: [{{id: d, type: disk, path: /tmp/o}}]\n  rollups: {{{keys}}}\n")
    };
    for (keys, place, part) in [
        ("max_bytes: 1kb", "max_bytes", "expected 64kb to 4gb"),
        ("max_bytes: lots", "max_bytes", "`lots` is not a size"),
        ("max_age: 0s", "max_age", "expected a duration such as 90s"),
        ("retention: soon", "retention", "found `soon`"),
        ("compression_level: 20", "compression_level", "expected 1 to 19"),
        ("path: ''", "path", "the path of a folder is missing"),
        ("object_store: {id: d}", "object_store", "this one is `disk`"),
        ("object_store: {id: x}", "object_store.id", "no object store has this id (there are: d)"),
        ("level: full", "level", "unknown variant `full`"),
    ] {
        let message = refused(&rollups(keys));
        assert!(
            message.contains(&format!("services.rollups.{place}: ")) && message.contains(part),
            "{keys}: {message}"
        );
    }
    assert!(warned(&rollups("prefix: a")).contains("has no effect"));
    let (config, _) = read("qtap.yaml", &rollups("retention: 30d, max_age: 90s, level: headers")).expect("accepted");
    let rollups = config.rollups.expect("configured");
    assert_eq!((rollups.retention, rollups.max_age.as_secs()), (Some(std::time::Duration::from_hours(30 * 24)), 90));
    assert!(rollups.headers && rollups.max_bytes == 256 << 20 && rollups.path.ends_with("ringtap/rollups"));
    let file = read_whole("qtap.yaml", "services: {rollups: {}}\n").expect("accepted");
    let shown = effective::print(&file.document, file.written).expect("printable");
    for part in
        ["path: /var/lib/ringtap/rollups", "max_bytes: 256mb", "max_age: 5m", "level: summary", "compression_level: 1"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(read("qtap.yaml", "").expect("accepted").0.rollups.is_none());
}

/// Spellings that other parsers of the same files take.
#[test]
fn other_spellings_are_taken() {
    let text = format!("version: \"2\"\ntap:\n  ignore_loopback: yes\n  http: {{stack: s}}\n{STACK}");
    let (config, _) = read("qtap.yaml", &text).expect("accepted");
    assert_eq!(config.wanted & ringtap_batch::ring::abi::wanted::LOOPBACK, 0);
    assert!(read("qtap.yaml", "? |\n  direction\n: 1\n").is_ok());
}

#[test]
fn endpoints_and_unused_stacks_are_checked() {
    let message = refused("services:\n  event_stores:\n    - type: otel\n      endpoint: 'not a host:xx'\n");
    assert!(message.starts_with("qtap.yaml:4: services.event_stores[0].endpoint: found `not a host:xx`"), "{message}");
    let text = format!(
        "tap: {{http: {{stack: s}}}}\n{STACK}  unused:\n    plugins:\n      - type: http_capture\n        config: {{level: ful}}\n"
    );
    assert!(refused(&text).starts_with("qtap.yaml:8: stacks.unused.plugins[0].config.level: "), "{}", refused(&text));
}

#[test]
fn filters_match_by_strategy() {
    let text = format!(
        "tap:\n  http: {{stack: s}}\n  filters:\n    groups: [container, nonsense]\n    custom:\n      \
         - {{exe: /usr/bin/cu, strategy: prefix}}\n      - {{exe: 'py.*3$', strategy: regex, only: [tls, http]}}\n{STACK}"
    );
    let (config, warnings) = read("qtap.yaml", &text).expect("accepted");
    let bits = |exe: &str| config.processes.filters.iter().filter(|f| f.matches(exe)).fold(0, |all, f| all | f.bits);
    assert_eq!(bits("/usr/bin/curl"), 0xff);
    assert_eq!(bits("/usr/bin/python3"), 4 | 8);
    assert_eq!(bits("/usr/bin/containerd"), 0xff);
    assert_eq!(bits("/usr/bin/wget"), 0);
    assert!(warnings[0].to_string().starts_with("qtap.yaml:4: tap.filters.groups[1]: the group `nonsense`"));
}

/// Where a text belongs, whatever is written there is one, as it is written.
#[test]
fn numbers_are_texts_where_texts_belong() {
    let text = "services:\n  event_stores: [{type: otel, service_name: 1.10, environment: true, headers: {x: {type: text, value: 0x1F}}}]\n\
        stacks:\n  2:\n    plugins:\n      - type: detect_errors\n        config: {rules: [{name: 404, trigger_status_codes: [404], trigger_contains: [0042, 1e3]}]}\n\
        tap: {http: {stack: 2}}\n";
    let file = read_whole("qtap.yaml", text).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(file.warnings, []);
    let crate::config::checked::EventStore::Otel(store) = &file.config.stores.events[0] else { panic!("a collector") };
    assert_eq!((store.service_name.as_str(), store.environment.as_str()), ("1.10", "true"));
    assert_eq!(store.headers, [("x".to_owned(), "0x1F".to_owned())]);
    let rule = &file.config.stacks.stacks[0].detectors[0].0.rules[0];
    assert_eq!((rule.name.as_str(), rule.contains.as_slice()), ("404", &["0042".to_owned(), "1e3".to_owned()][..]));
    let shown = effective::print(&file.document, file.written).expect("printable");
    assert!(shown.contains("name: '404'") && shown.contains("- 404\n"), "{shown}");
    // Everything else stays as strict as it was.
    assert!(refused("tap: {http: {stack: [2]}}\n").contains("expected a string"));
    assert!(refused("services: {event_stores: [{type: stdout, id: {a: 1}}]}\n").contains("expected a string"));
}

#[test]
fn of_several_documents_the_first_is_read() {
    let text = format!("tap: {{http: {{stack: s}}}}\n{STACK}---\ntap: {{direction: sideways}}\n");
    assert_eq!(warned(&text), "qtap.yaml:5: a second document begins here; only the first is read");
}

#[test]
fn what_is_hardly_meant_is_named() {
    let rule = |expr: &str| {
        format!(
            "stacks:\n  s:\n    plugins:\n      - type: http_capture\n        config:\n          rules:\n            - expr: {expr}\n              level: full\ntap: {{http: {{stack: s}}}}\n"
        )
    };
    assert_eq!(
        warned(&rule("http.res.staus == 500")),
        "qtap.yaml:7: stacks.s.plugins[0].config.rules[0].expr: no transaction has the field `http.res.staus`, so what reads it has no value; did you mean `http.res.status`?"
    );
    assert!(warned(&rule("http.req.method == face")).contains("`face` is a hexadecimal literal here; put quotes"));
    for known in [
        "response.headers.x-a == 'b'",
        "http.req.query.a == 'b'",
        "dst.process.env.A == 'b'",
        "src.pod.labels.app == 'b'",
        "req.method == 'GET'",
        "dst.ip == 47:45:54:00:11:22",
    ] {
        assert_eq!(warned(&rule(known)), "", "{known}");
    }
    let message = refused("redaction:\n  patterns: ['a*']\n");
    assert_eq!(message, "qtap.yaml:2: redaction.patterns[0]: `a*` matches the empty text, and so everything");
    let message = refused("services:\n  event_stores:\n    - type: otel\n      endpoint: '{{RINGTAP_NO_SUCH}}:4317'\n");
    assert_eq!(
        message,
        "qtap.yaml:4: services.event_stores[0].endpoint: the environment variable `RINGTAP_NO_SUCH` is not set"
    );
}

#[test]
fn the_effective_configuration_hides_and_leaves_out() {
    let text = "services:\n  event_stores: [{type: otel, protocol: http, endpoint: 'https://me:hunter2@c.example/?token=0123456789abcdef'}]\n  object_stores: [{type: disk, path: /tmp/o}]\n";
    let file = read_whole("qtap.yaml", text).expect("accepted");
    let shown = effective::print(&file.document, file.written).expect("printable");
    assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
    for part in ["body: 2mb", "agent: 1024mb", "json_paths: []", "flat_attributes: false"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("insecure: "), "{shown}");
}
