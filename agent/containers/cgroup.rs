//! The container in the name of a control group.

use std::fs;

/// Digits of a container's id, as all runtimes make them.
const DIGITS: usize = 64;
/// Of which so many are shown.
const SHOWN: usize = 12;

/// The id of the container that a process runs in. `None`: it runs in none, or is gone.
#[must_use]
pub fn container_of(tgid: u32) -> Option<String> {
    find(&fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?).map(str::to_owned)
}

/// The control group of a process: that of the one tree that all kernels have now, else the first that is not the root.
#[must_use]
pub fn path_of(tgid: u32) -> Option<String> {
    path(&fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?).map(str::to_owned)
}

fn path(text: &str) -> Option<&str> {
    let mut paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    unified.filter(|path| *path != "/").or_else(|| paths.find(|path| *path != "/")).or(unified)
}

/// An id as people see it.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..SHOWN).unwrap_or(id)
}

/// The last id in any of the lines: a container inside of another one is meant itself. Runtimes write it bare, or as
/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`.
fn find(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            // Podman puts a group below that of the container; conmon is no part of it.
            let id = part.rsplit(['-', ':']).next()?;
            let is_id = id.len() == DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (is_id && !part.contains("conmon")).then_some(id)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_it() {
        let id = "0123456789abcdef".repeat(4);
        let outer = "f".repeat(64);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/libpod_parent/libpod-{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods/burstable/pod9f2c/{id}"),
            format!("/kubepods.slice/kubepods-pod9f2c.slice/cri-containerd-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod9f2c.slice/crio-{id}.scope"),
            format!("/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:{id}"),
            format!("/docker/{outer}/kubepods/pod1/{id}"),
        ] {
            assert_eq!(find(&format!("0::{path}\n")), Some(id.as_str()), "{path}");
            let old = format!("12:cpuset:/\n1:name=systemd:{path}\n0::/\n");
            assert_eq!(find(&old), Some(id.as_str()), "{path}");
        }
    }

    #[test]
    fn the_group_of_either_hierarchy() {
        for (text, group) in [
            ("0::/user.slice\n", Some("/user.slice")),
            ("4:cpu:/\n1:name=systemd:/a:b\n0::/\n", Some("/a:b")),
            ("4:cpu:/x\n0::/y\n", Some("/y")),
            ("0::/\n", Some("/")),
            ("broken", None),
        ] {
            assert_eq!(path(text), group, "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        let digits = "0".repeat(64);
        let conmon = format!("0::/machine.slice/libpod-conmon-{digits}.scope");
        for text in ["", "0::/", "0::/user.slice/user-0.slice/session-1.scope", "0::/docker/abc", &conmon, "broken"] {
            assert_eq!(find(text), None, "{text}");
        }
        assert_eq!(find(&format!("0::/x/{}", "G".repeat(64))), None);
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
    }
}
