//! Templates of urls and endpoints: known names are replaced, all else stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap::{config::template::from_environment, sink::template::access_url};

fuzz_target!(|text: &str| {
    let url = access_url(text, "d", "b", "e", "s");
    assert!(url.len() <= text.len());
    if !text.contains("{{") {
        assert_eq!((url.as_str(), from_environment(text).as_deref()), (text, Ok(text)));
    }
    for name in ["DIGEST", "BUCKET", "ENDPOINT", "SCHEME"] {
        assert!(!access_url(&format!("{{{{{name}}}}}"), "d", "b", "e", "s").contains('{'));
    }
    let _ = from_environment(text);
});
