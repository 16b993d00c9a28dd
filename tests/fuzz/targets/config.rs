//! The reader of configurations: whatever text is given, it ends with a configuration or with problems that have lines
//! inside of the text; and what it takes, it can write out and take again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap::config::{effective, read, read_whole};

fuzz_target!(|text: &str| {
    // Files of other people's choice are not to be read by a fuzzer.
    if text.contains("file") || text.len() > 16 << 10 {
        return;
    }
    match read_whole("fuzz.yaml", text) {
        Err(problems) => {
            // YAML knows more ends of lines than Rust.
            let ends = text.chars().filter(|c| "\n\r\u{85}\u{2028}\u{2029}".contains(*c)).count();
            assert!(!problems.is_empty() && problems.iter().all(|p| p.line <= ends + 2), "{problems:?}");
        }
        Ok(file) => {
            // Values that nobody reads, such as a tagged version, may be more than YAML can write. Secrets are left out,
            // so that a store may lack them.
            if let Ok(printed) = effective::print(&file.document, file.written) {
                let _ = read("effective.yaml", &printed);
            }
        }
    }
});
