//! The direction of the rooms: who may depend on whom, as ARCHITECTURE.md draws it.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Each room with the rooms that it may use.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("ringtap", &["ringtap-batch", "ringtap-bpf", "ringtap-exchange", "ringtap-ring", "ringtap-rules"]),
    ("ringtap-batch", &["ringtap-exchange", "ringtap-ring", "ringtap-rules"]),
    ("ringtap-ring", &["ringtap-bpf"]),
    ("ringtap-bpf", &[]),
    ("ringtap-exchange", &[]),
    ("ringtap-rules", &[]),
];

#[test]
fn rooms_depend_downward_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().expect("a list") {
        let name = package["name"].as_str().expect("a name");
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is a new room: say here what it may use"));
        for dependency in package["dependencies"].as_array().expect("a list") {
            let used = dependency["name"].as_str().expect("a name");
            assert!(!used.starts_with("ringtap") || may.contains(&used), "{name} must not use {used}");
        }
        seen += 1;
    }
    assert_eq!(seen, ALLOWED.len());
}

/// Unsafe code stands in the ring, and where programs are loaded; every other crate forbids it.
#[test]
fn unsafe_code_stays_in_the_ring() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for head in ["agent/lib.rs", "agent/main.rs", "batch/lib.rs", "batch/exchange/lib.rs", "batch/rules/lib.rs"] {
        let text = std::fs::read_to_string(root.join(head)).expect("readable");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{head}");
    }
}

/// Nothing writes to the memory of a process that is observed: neither a program in the kernel, nor the agent.
#[test]
fn nobody_writes_to_other_processes() {
    const WAYS: [&str; 6] =
        ["bpf_probe_write_user", "bpf_copy_to_user", "process_vm_writev", "ptrace(", "PTRACE_", "/mem\""];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = ["bpf", "agent", "batch"].map(|folder| root.join(folder)).into();
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                // The list of what the kernel is asked to refuse names it as well.
                let text = text.replace("    libc::SYS_process_vm_writev,", "");
                let way = WAYS.iter().find(|way| text.contains(**way));
                assert!(way.is_none(), "{}: {way:?}", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} files");
}

/// What `./dev` can do stands in what it prints.
#[test]
fn every_dev_command_is_listed() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let dev = std::fs::read_to_string(root.join("dev")).expect("readable");
    let output = Command::new(root.join("dev")).output().expect("it runs");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let cases = dev
        .lines()
        .filter_map(|line| line.strip_suffix(')'))
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()));
    for command in cases {
        assert!(listed.contains(&format!("  {command}")), "{command} is not listed by ./dev");
    }
}
