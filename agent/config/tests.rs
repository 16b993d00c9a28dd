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
    assert!(refused(&store("      bucket: b\n")).contains("needs `access_key` and `secret_key`"));
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
