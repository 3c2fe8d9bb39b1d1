//! How long a thread runs at a time where others want its core.

use nix::errno::Errno;
use nix::libc;

/// As `sched_setattr(2)` has it, in its first version.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of a thread that is scheduled like most: how long it runs at a time, in nanoseconds.
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = 48;

const _: () = assert!(size_of::<Attributes>() == SIZE as usize);

/// The least that can be asked for.
const SHORTEST: u64 = 100_000;

/// Has the calling thread run often and for a short time, rather than seldom and for a long one: a
/// guest waits for it each time that it is woken. It gets no more of a core that way than others do.
/// Before Linux 6.12 it makes no difference. An error where a sandbox forbids it.
pub(crate) fn run_for_a_moment_at_a_time() -> nix::Result<()> {
    let mut attributes = Attributes::default();
    let this: *mut Attributes = &raw mut attributes;
    // SAFETY: the kernel writes as many bytes as it is told there are.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, this, SIZE, 0_u32) };
    Errno::result(got)?;
    // Whoever made it a real-time thread knows better.
    let is_like_most = [libc::SCHED_OTHER, libc::SCHED_BATCH].map(i32::cast_unsigned);
    if !is_like_most.contains(&attributes.policy) {
        return Ok(());
    }
    attributes.runtime = SHORTEST;
    // SAFETY: the kernel reads as many bytes as the first of them say.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0_u32) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_about_the_thread_changes() {
        let read = || {
            let mut attributes = Attributes::default();
            let this: *mut Attributes = &raw mut attributes;
            // SAFETY: as above.
            let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, this, SIZE, 0_u32) };
            assert_eq!(Errno::result(got), Ok(0));
            attributes
        };
        let before = read();
        run_for_a_moment_at_a_time().unwrap();
        let after = read();
        assert_eq!((before.policy, before.nice), (after.policy, after.nice));
        // Where the kernel takes it into account, it says so.
        assert!([before.runtime, SHORTEST].contains(&after.runtime), "{after:?}");
    }
}
