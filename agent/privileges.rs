//! What the agent may do once its programs are loaded: what it needs from then on, and nothing else.
//!
//! Landlock is not used: a process that is confined by it may not look at the executables and root folders of processes
//! that are not, by which probes are placed (`/proc/<pid>/exe` and `/proc/<pid>/root` then fail, also for root).

use std::{collections::BTreeMap, io};

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

/// What a capture needs while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// One perf event a probe, where the kernel has no links of many places.
    pub perf_events: bool,
    /// To let go of processes that were stopped.
    pub hold_new: bool,
    /// A server below port 1024.
    pub low_port: bool,
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// The kernel refuses.
    #[error("{what}: {error}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The filter of system calls cannot be made or set.
    #[error("the filter of system calls: {0}")]
    Filter(String),
}

fn refused(what: &'static str) -> impl Fn(rustix::io::Errno) -> PrivilegesError {
    move |error| PrivilegesError::Refused { what, error: error.into() }
}

/// The least set of capabilities.
fn least(needs: Needs) -> CapabilitySet {
    let mut set = CapabilitySet::BPF
        | CapabilitySet::PERFMON
        // Executables, environments and root folders of other users' processes.
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH;
    set.set(CapabilitySet::SYS_ADMIN, needs.perf_events);
    set.set(CapabilitySet::KILL, needs.hold_new);
    set.set(CapabilitySet::NET_BIND_SERVICE, needs.low_port);
    set
}

/// Gives up every capability that is not needed, for good, and the way to get others by programs that have them. Threads that
/// begin later inherit it: this must be called before there are any. Returns the names of what is left.
///
/// # Errors
///
/// The kernel refuses.
pub fn drop_capabilities(needs: Needs) -> Result<Vec<String>, PrivilegesError> {
    set_no_new_privs(true).map_err(refused("no new privileges"))?;
    let least = least(needs);
    let held = capabilities(None).map_err(refused("reading capabilities"))?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for one in CapabilitySet::all().difference(least).iter() {
            // Those that this kernel does not know cannot be removed.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    let kept = held.permitted & least;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(refused("dropping capabilities"))?;
    Ok(kept.iter_names().map(|(name, _)| format!("CAP_{name}")).collect())
}

/// System calls that no part of the agent makes once it runs: starting programs, touching other processes, mounts, modules,
/// clocks, users, and namespaces.
const REFUSED: [i64; 48] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_personality,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_vhangup,
];

fn filter() -> Result<BpfProgram, String> {
    let refused: BTreeMap<i64, Vec<_>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "not known on this machine".to_owned())?;
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

/// Makes the kernel refuse those system calls to all threads, for good. To be called once everything has begun.
///
/// # Errors
///
/// The kernel has no such filters.
pub fn refuse_calls() -> Result<(), PrivilegesError> {
    let filter = filter().map_err(PrivilegesError::Filter)?;
    apply_filter_all_threads(&filter).map_err(|error| PrivilegesError::Filter(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_made() {
        assert!(filter().expect("made").len() > REFUSED.len());
        let mut unique = REFUSED.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), REFUSED.len());
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let none = least(Needs { perf_events: false, hold_new: false, low_port: false });
        assert!(!none.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE));
        let all = least(Needs { perf_events: true, hold_new: true, low_port: true });
        assert_eq!(all.difference(none).iter().count(), 3);
    }
}
