//! Loads and stores that report a poisoned page instead of ending the process.
//!
//! A poisoned page raises SIGBUS at the instruction which touches it. There are exactly two such
//! instructions here, each the first of its routine; the signal handler knows their addresses and
//! lets the routine return 1 instead. Any other SIGBUS ends the process as usual.

use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::AtomicU64;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::set_default_action;

/// The access raised SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poisoned;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".hidden uffd_guest_load",
    ".globl uffd_guest_load",
    "uffd_guest_load:",
    "mov rax, [rdi]",
    "mov [rsi], rax",
    "xor eax, eax",
    "ret",
    ".hidden uffd_guest_store",
    ".globl uffd_guest_store",
    "uffd_guest_store:",
    "mov [rdi], rsi",
    "xor eax, eax",
    "ret",
    ".hidden uffd_guest_poisoned",
    ".globl uffd_guest_poisoned",
    "uffd_guest_poisoned:",
    "mov eax, 1",
    "ret",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".hidden uffd_guest_load",
    ".globl uffd_guest_load",
    "uffd_guest_load:",
    "ldr x9, [x0]",
    "str x9, [x1]",
    "mov w0, #0",
    "ret",
    ".hidden uffd_guest_store",
    ".globl uffd_guest_store",
    "uffd_guest_store:",
    "str x1, [x0]",
    "mov w0, #0",
    "ret",
    ".hidden uffd_guest_poisoned",
    ".globl uffd_guest_poisoned",
    "uffd_guest_poisoned:",
    "mov w0, #1",
    "ret",
);

// SAFETY: the signatures are those of the routines above, in the C calling convention.
unsafe extern "C" {
    fn uffd_guest_load(address: *const AtomicU64, word: *mut u64) -> c_int;
    fn uffd_guest_store(address: *const AtomicU64, word: u64) -> c_int;
    fn uffd_guest_poisoned() -> c_int;
}

/// Reads one word of mapped memory.
pub(super) fn load(address: *const AtomicU64) -> Result<u64, Poisoned> {
    let mut word = 0;
    // SAFETY: the callers pass an aligned word of a mapping, and an aligned load of 8 bytes is a
    // relaxed atomic one on both architectures. If the page cannot be had, the handler makes the
    // routine return before it has written anything.
    let failed = unsafe { uffd_guest_load(address, &raw mut word) };
    if failed == 0 { Ok(word) } else { Err(Poisoned) }
}

/// Writes one word of mapped memory.
pub(super) fn store(address: *const AtomicU64, word: u64) -> Result<(), Poisoned> {
    // SAFETY: as for `load`; the memory is written by atomic stores only.
    let failed = unsafe { uffd_guest_store(address, word) };
    if failed == 0 { Ok(()) } else { Err(Poisoned) }
}

/// Installs the handler that makes [`load`] and [`store`] report poisoned pages.
pub(crate) fn recover_from_sigbus() -> nix::Result<()> {
    let handler = SigHandler::SigAction(on_sigbus);
    let action = SigAction::new(handler, SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: the handler does nothing but look at the context and call `sigaction`.
    unsafe { sigaction(Signal::SIGBUS, &action).map(drop) }
}

extern "C" fn on_sigbus(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the context of the thread, which it restores
    // from this very memory when the handler returns.
    let program_counter = unsafe { program_counter(context.cast()) };
    let here = *program_counter;
    if here == uffd_guest_load as *const () as u64 || here == uffd_guest_store as *const () as u64 {
        // Both routines use no stack: the return address is where `ret` looks for it.
        *program_counter = uffd_guest_poisoned as *const () as u64;
    } else {
        // The access happens again, now without a handler.
        set_default_action(Signal::SIGBUS);
    }
}

/// Where the thread will go on, to be read or changed.
///
/// # Safety
/// `context` is what a signal handler was given, and the handler has not returned.
#[allow(clippy::needless_lifetimes, reason = "the lifetime is that of the handler's frame")]
unsafe fn program_counter<'a>(context: *mut libc::ucontext_t) -> &'a mut u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: by the contract above; a general register has 64 bits, signed or not.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        &mut *(&raw mut registers[libc::REG_RIP as usize]).cast::<u64>()
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: by the contract above.
    unsafe {
        &mut (*context).uc_mcontext.pc
    }
}
