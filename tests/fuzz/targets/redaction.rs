//! Redaction: whatever a body or a url holds, masking ends, and the value of a member named like a secret is gone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap_batch::redact::Redaction;

const SECRET: &str = "f00dfeedf00dfeedf00d";

fuzz_target!(|data: (&str, &str, &str)| {
    let (before, name, after) = data;
    let redaction = Redaction::default();
    let _ = redaction.url_text(before);
    let _ = redaction.body_bytes(before.as_bytes(), name);
    // A whole document around a secret: what stands before must not hide it.
    if !before.contains(['"', '\\']) {
        let body = format!("{{{before}\"password\":\"{SECRET}\"{after}");
        let masked = redaction.body_bytes(body.as_bytes(), "application/json");
        assert!(!String::from_utf8_lossy(&masked).contains(SECRET), "{body}");
    }
});
