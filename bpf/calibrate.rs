//! Two functions that do nothing, to measure what it costs to stop at a probe: one begins with an instruction that the
//! kernel emulates, the other with one that it must single-step in the process.

use std::arch::naked_asm;

/// Its first instruction is emulated.
#[cfg(target_arch = "x86_64")]
// SAFETY: what is pushed is popped; no register has another value afterwards.
#[unsafe(naked)]
pub extern "C" fn emulated() {
    naked_asm!("push rbp", "pop rbp", "ret")
}

/// Its first instruction is single-stepped.
#[cfg(target_arch = "x86_64")]
// SAFETY: the stack pointer is where it was, below it nothing is touched.
#[unsafe(naked)]
pub extern "C" fn stepped() {
    naked_asm!("sub rsp, 8", "add rsp, 8", "ret")
}

/// Its first instruction is emulated.
#[cfg(target_arch = "aarch64")]
// SAFETY: it returns and does nothing else.
#[unsafe(naked)]
pub extern "C" fn emulated() {
    naked_asm!("nop", "ret")
}

/// Its first instruction is single-stepped.
#[cfg(target_arch = "aarch64")]
// SAFETY: the stack pointer is where it was, below it nothing is touched.
#[unsafe(naked)]
pub extern "C" fn stepped() {
    naked_asm!("sub sp, sp, #16", "add sp, sp, #16", "ret")
}
