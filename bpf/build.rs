//! Compiles the programs with clang and leaves the objects where `lib.rs` embeds them.
//!
//! `BPF_CLANG` names another compiler; without it the first installed of a list is taken.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const OBJECTS: [&str; 3] = ["capture", "cookie", "bench"];
/// From 20 on clang turns plain atomic additions into fetching ones, which kernels before 5.12 refuse.
const COMPILERS: [&str; 7] = ["clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14", "clang"];

fn main() {
    println!("cargo:rerun-if-env-changed=BPF_CLANG");
    for source in std::fs::read_dir(".").expect("the crate has a folder").flatten() {
        let path = source.path();
        if matches!(path.extension().and_then(|e| e.to_str()), Some("c" | "h")) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = compiler();
    for object in OBJECTS {
        compile(&clang, object, &out);
    }
}

fn compiler() -> String {
    if let Ok(named) = env::var("BPF_CLANG") {
        return named;
    }
    let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    COMPILERS
        .iter()
        .find(runs)
        .map(ToString::to_string)
        .expect("no clang found: install clang (14 or newer) and libbpf-dev, or name a compiler in BPF_CLANG")
}

fn compile(clang: &str, object: &str, out: &Path) {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the architecture");
    let target = if architecture == "aarch64" { "arm64" } else { "x86" };
    let status = Command::new(clang)
        .args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror"])
        .arg(format!("-D__TARGET_ARCH_{target}"))
        .args(["-I.", "-idirafter"])
        .arg(format!("/usr/include/{architecture}-linux-gnu"))
        .args(["-c", &format!("{object}.bpf.c"), "-o"])
        .arg(out.join(format!("{object}.bpf.o")))
        .status()
        .expect("clang was found a moment ago");
    assert!(status.success(), "{clang} could not compile bpf/{object}.bpf.c (libbpf-dev gives the headers)");
}
