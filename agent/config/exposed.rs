//! Who else may read or change a configuration file.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use serde_yaml::Value;

const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_READ: u32 = 0o004;

/// What should be changed about the permissions of a file; empty if nothing, or if it is no file.
#[must_use]
pub fn warnings(file: &Path, text: &str) -> Vec<String> {
    let Ok(metadata) = fs::metadata(file) else { return Vec::new() };
    if !metadata.is_file() {
        return Vec::new();
    }
    let name = file.display();
    let mut warnings = Vec::new();
    let group = if metadata.gid() == 0 { 0 } else { GROUP_WRITES };
    if metadata.mode() & (OTHERS_WRITE | group) != 0 {
        warnings.push(format!(
            "{name} can be changed by others: they could send what is captured elsewhere; chmod go-w {name}"
        ));
    }
    if metadata.mode() & OTHERS_READ != 0 && holds_secrets(text) {
        warnings.push(format!(
            "{name} holds secrets as text, and everybody can read it; chmod o-r {name}, or name them by `type: env`"
        ));
    }
    warnings
}

/// Whether a value is written as text where it could be named.
fn holds_secrets(text: &str) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Sequence(list) => list.iter().any(within),
            Value::Mapping(map) => {
                let is_text = map.get("type").and_then(Value::as_str) == Some("text");
                let given = map.get("value").and_then(Value::as_str).is_some_and(|value| !value.is_empty());
                (is_text && given) || map.values().any(within)
            }
            _ => false,
        }
    }
    serde_yaml::from_str(text).is_ok_and(|value| within(&value))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn who_may_read_or_change_it_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yaml");
        let (secret, plain) = ("a: [{token: {type: text, value: x}}]", "a: [{token: {type: env, value: X}}]");
        fs::write(&file, plain).expect("written");
        let with = |mode, text| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
            warnings(&file, text).len()
        };
        assert_eq!([with(0o600, secret), with(0o644, plain), with(0o644, secret), with(0o646, secret)], [0, 0, 1, 2]);
        assert_eq!(warnings(Path::new("/dev/null"), secret).len(), 0);
    }
}
