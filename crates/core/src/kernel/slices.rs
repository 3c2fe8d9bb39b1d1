//! How long a thread runs at a time where others want its core.

use std::time::{Duration, Instant};

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

/// How long work that nobody waits for goes on before it is asked whether somebody wants the core.
const AT_A_TIME: Duration = Duration::from_micros(20);

/// The most that can be asked for.
const LONGEST: u64 = 100_000_000;

/// Has the calling thread run often and for a short time, rather than seldom and for a long one: a
/// guest waits for it each time that it is woken. It gets no more of a core that way than others do.
/// Before Linux 6.12 it makes no difference. An error where a sandbox forbids it.
pub(crate) fn run_for_a_moment_at_a_time() -> nix::Result<()> {
    change(Some(libc::SCHED_OTHER), SHORTEST).map(drop)
}

/// Has the calling thread take no core from whoever runs there when it is woken, and leave it to
/// whoever else is: for work of some milliseconds beside guests, in system calls that cannot be done in
/// pieces. It gets no less of a core that way than others do. Dropped, the thread is as it was; threads
/// that it starts are as it is by then.
#[must_use]
pub fn stay_behind() -> Behind {
    // Of two threads that have a claim to a core, the one is first that runs for the shorter time.
    let before = change(Some(libc::SCHED_BATCH), LONGEST).ok().flatten();
    // Whoever waits already has the core at once; and only from now on does the time count.
    std::thread::yield_now();
    Behind { before }
}

/// Has the calling thread, which guests wait for from now on, stay behind no more where whoever started
/// it did.
pub fn serve_guests() {
    let stays_behind = |it: &Attributes| it.policy == libc::SCHED_BATCH.cast_unsigned();
    if attributes().is_ok_and(|it| stays_behind(&it) && it.runtime == LONGEST) {
        let _ = change(Some(libc::SCHED_OTHER), 0);
    }
}

/// See [`stay_behind`].
#[derive(Debug)]
pub struct Behind {
    before: Option<Before>,
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Some((policy, runtime)) = self.before {
            let _ = change(Some(policy), runtime);
        }
    }
}

/// Work of some milliseconds beside guests, done in pieces: after each the core is offered to whoever
/// was woken there. The kernel itself would have them wait until the clock ticks, even behind a
/// thread that runs for a short time at a time. Dropped, the thread is as it was.
#[derive(Debug)]
pub(crate) struct InPieces {
    since: Instant,
    before: Option<Before>,
}

impl InPieces {
    pub(crate) fn begin() -> Self {
        // An offer costs as much of the thread's share as it may run at a time.
        let before = change(None, SHORTEST).ok().flatten();
        Self { since: Instant::now(), before }
    }

    /// A piece is done. They are to take some microseconds each.
    pub(crate) fn done(&mut self) {
        if self.since.elapsed() >= AT_A_TIME {
            std::thread::yield_now();
            self.since = Instant::now();
        }
    }
}

impl Drop for InPieces {
    fn drop(&mut self) {
        if let Some((policy, runtime)) = self.before {
            let _ = change(Some(policy), runtime);
        }
    }
}

/// How a thread is scheduled, and how long it runs at a time.
type Before = (i32, u64);

/// As the thread was before, if that was changed.
fn change(policy: Option<i32>, nanos: u64) -> nix::Result<Option<Before>> {
    let mut attributes = attributes()?;
    // Whoever made it a real-time thread, or one for idle times, knows better.
    let is_like_most = [libc::SCHED_OTHER, libc::SCHED_BATCH].map(i32::cast_unsigned);
    if !is_like_most.contains(&attributes.policy) {
        return Ok(None);
    }
    let before = (attributes.policy.cast_signed(), attributes.runtime);
    attributes.policy = policy.map_or(attributes.policy, i32::cast_unsigned);
    attributes.runtime = nanos;
    // SAFETY: the kernel reads as many bytes as the first of them say.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0_u32) };
    Errno::result(set)?;
    Ok(Some(before))
}

fn attributes() -> nix::Result<Attributes> {
    let mut attributes = Attributes::default();
    let this: *mut Attributes = &raw mut attributes;
    // SAFETY: the kernel writes as many bytes as it is told there are.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, this, SIZE, 0_u32) };
    Errno::result(got)?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the kernel takes it into account, it says so.
    fn is_said(runtime: u64, before: &Attributes) -> bool {
        [before.runtime, runtime].contains(&attributes().unwrap().runtime)
    }

    #[test]
    fn nothing_else_about_the_thread_changes() {
        let before = attributes().unwrap();
        run_for_a_moment_at_a_time().unwrap();
        let after = attributes().unwrap();
        assert_eq!((before.policy, before.nice), (after.policy, after.nice));
        assert!(is_said(SHORTEST, &before));
    }

    #[test]
    fn a_thread_that_stays_behind_is_as_it_was_afterwards_and_serves_guests_at_once() {
        let before = attributes().unwrap();
        let behind = stay_behind();
        assert_eq!(attributes().unwrap().policy, libc::SCHED_BATCH.cast_unsigned());
        assert!(is_said(LONGEST, &before));
        std::thread::scope(|scope| {
            let serves = scope.spawn(|| {
                run_for_a_moment_at_a_time().unwrap();
                attributes().unwrap().policy
            });
            assert_eq!(serves.join().unwrap(), libc::SCHED_OTHER.cast_unsigned());
        });
        drop(behind);
        let after = attributes().unwrap();
        assert_eq!(
            (before.policy, before.nice, before.runtime),
            (after.policy, after.nice, after.runtime)
        );
    }

    #[test]
    fn a_thread_is_as_it_was_after_work_in_pieces() {
        let before = attributes().unwrap();
        let mut pieces = InPieces::begin();
        assert!(is_said(SHORTEST, &before));
        pieces.done();
        drop(pieces);
        let after = attributes().unwrap();
        assert_eq!(
            (before.policy, before.nice, before.runtime),
            (after.policy, after.nice, after.runtime)
        );
    }
}
