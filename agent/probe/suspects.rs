//! TLS that probes cannot reach, as far as a file's name or content gives it away: only to be told of.

use std::{fs::File, io::Read as _, path::Path};

use memchr::memmem::Finder;

/// Files by whose name a runtime is known.
const NAMES: [(&str, &str); 3] = [
    ("libjvm.so", "Java does TLS in Java (JSSE): there is no native function to probe"),
    ("beam.smp", "Erlang does TLS in Erlang: there is no native function to probe"),
    ("libcoreclr.so", ".NET without OpenSSL in it yet: it loads libssl with its first connection"),
];
/// Texts that a library leaves in a program, and what follows.
const TEXTS: [(&str, &str); 5] = [
    ("rustls-0.", "rustls, compiled in, without symbols: this build of it is not known"),
    ("BoringSSL", "BoringSSL, compiled in, without symbols: this build of it is not known"),
    ("s2n_connection", "s2n, compiled in, without symbols"),
    ("crypto/tls", "Go, of a version whose table of functions is not known"),
    ("OpenSSL 3.", "OpenSSL, compiled in, without symbols: this build of it is not known"),
];
const CHUNK: usize = 1 << 20;
/// Of a larger file the rest is not searched.
const SEARCHED: usize = 1 << 30;

/// What a file may have of TLS. `None`: nothing that is known.
#[must_use]
pub fn suspect(path: &Path, shown: &Path) -> Option<&'static str> {
    let name = shown.file_name().unwrap_or_default().to_string_lossy();
    let known = NAMES.iter().find(|(file, _)| name.starts_with(file)).map(|(_, why)| *why);
    known.or_else(|| search(path))
}

fn search(path: &Path) -> Option<&'static str> {
    let finders: Vec<(Finder<'_>, &str)> = TEXTS.iter().map(|(text, why)| (Finder::new(*text), *why)).collect();
    let longest = TEXTS.iter().map(|(text, _)| text.len()).max().unwrap_or(1);
    let mut file = File::open(path).ok()?;
    let (mut buffer, mut kept, mut read) = (vec![0; CHUNK], 0, 0);
    // The first of the table that is anywhere in the file.
    let mut best: Option<usize> = None;
    while read < SEARCHED {
        let n = file.read(&mut buffer[kept..]).ok().filter(|n| *n > 0);
        let Some(n) = n else { break };
        let end = kept + n;
        let found = finders.iter().position(|(finder, _)| finder.find(&buffer[..end]).is_some());
        best = found.into_iter().chain(best).min();
        if best == Some(0) {
            break;
        }
        read += n;
        // A text can lie across two pieces.
        kept = end.min(longest - 1);
        buffer.copy_within(end - kept..end, 0);
    }
    best.map(|n| finders[n].1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn texts_are_found_wherever_they_lie() {
        for at in [0, 5, CHUNK - 4, CHUNK, 2 * CHUNK + 17] {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(&vec![b'x'; at]).expect("written");
            file.write_all(b"BoringSSL").expect("written");
            assert!(suspect(file.path(), Path::new("program")).is_some_and(|why| why.starts_with("BoringSSL")), "{at}");
        }
        let empty = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(suspect(empty.path(), Path::new("program")), None);
        assert!(suspect(empty.path(), Path::new("/lib/libjvm.so")).is_some());
    }
}
