//! Which system calls a thread of another process makes, as `ptrace(2)` tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How often a thread made each system call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemCalls(BTreeMap<i64, Calls>);

/// How often it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    /// With a result.
    done: u64,
    /// With EAGAIN: there was nothing yet.
    in_vain: u64,
}

impl SystemCalls {
    /// How often a system call was made that did not answer EAGAIN, by its number.
    pub fn done(&self, number: i64) -> u64 {
        self.0.get(&number).map_or(0, |calls| calls.done)
    }

    /// How many others there were, whatever they answered.
    pub fn others(&self, numbers: &[i64]) -> u64 {
        let others = self.0.iter().filter(|(number, _)| !numbers.contains(number));
        others.map(|(_, calls)| calls.done + calls.in_vain).sum()
    }
}

/// A thread that is being traced: each of its system calls takes longer for that.
#[derive(Debug)]
pub struct Traced {
    over: Arc<AtomicBool>,
    tracer: JoinHandle<nix::Result<SystemCalls>>,
}

impl Traced {
    /// Begins to trace a thread, which goes on at once.
    ///
    /// # Panics
    /// If it cannot be traced.
    pub fn start(tid: i32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (begun, has_begun) = channel();
        let until = Arc::clone(&over);
        // Only the thread that began may go on with it.
        let tracer = thread::spawn(move || trace(Pid::from_raw(tid), &until, &begun));
        if has_begun.recv().is_err() {
            panic!("thread {tid} cannot be traced: {:?}", tracer.join());
        }
        Self { over, tracer }
    }

    /// Ends it at the next system call, which `poke` has the thread make should it be asleep.
    ///
    /// # Panics
    /// If the thread could not be traced to the end.
    pub fn end(self, poke: impl FnOnce()) -> SystemCalls {
        self.over.store(true, Ordering::Release);
        poke();
        let calls = self.tracer.join().expect("the tracer does not panic");
        calls.expect("the thread is traced to the end")
    }
}

fn trace(tid: Pid, over: &AtomicBool, begun: &Sender<()>) -> nix::Result<SystemCalls> {
    ptrace::seize(tid, Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::interrupt(tid)?;
    wait(tid)?;
    let _ = begun.send(());
    let mut calls = SystemCalls::default();
    let mut signal = None;
    // The first stop is that of a call's beginning, the next that of its end.
    let mut called = None;
    while !over.load(Ordering::Acquire) {
        ptrace::syscall(tid, signal.take())?;
        match wait(tid)? {
            WaitStatus::PtraceSyscall(_) => match called.take() {
                None => called = Some(number(tid)?),
                Some(number) => {
                    let calls = calls.0.entry(number).or_default();
                    match result(tid)? {
                        AGAIN => calls.in_vain += 1,
                        _ => calls.done += 1,
                    }
                }
            },
            WaitStatus::Stopped(_, sent) => signal = Some(sent),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(Errno::ESRCH),
            _ => {}
        }
    }
    ptrace::detach(tid, None)?;
    Ok(calls)
}

fn wait(tid: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(tid, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => {}
            status => return status,
        }
    }
}

/// What a call answers where it would have to wait.
const AGAIN: i64 = -(Errno::EAGAIN as i64);

#[cfg(target_arch = "x86_64")]
fn number(tid: Pid) -> nix::Result<i64> {
    Ok(ptrace::getregs(tid)?.orig_rax.cast_signed())
}

#[cfg(target_arch = "x86_64")]
fn result(tid: Pid) -> nix::Result<i64> {
    Ok(ptrace::getregs(tid)?.rax.cast_signed())
}

#[cfg(target_arch = "aarch64")]
fn number(tid: Pid) -> nix::Result<i64> {
    Ok(ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(tid)?.regs[8].cast_signed())
}

#[cfg(target_arch = "aarch64")]
fn result(tid: Pid) -> nix::Result<i64> {
    Ok(ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(tid)?.regs[0].cast_signed())
}
