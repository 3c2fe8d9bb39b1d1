//! What each op does.

mod access;
mod bench;
mod order;
mod soak;
mod steps;
mod tables;

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use userfaultfd_sys as sys;

use crate::flags::set_nonblocking;
use crate::guest::Guest;
use crate::lock::lock;
use crate::memory::bytes;
use crate::protocol::{Op, Refusal};
use crate::raw::{Mapping, create_user_mode_only, replace};
use crate::storm::Storm;

/// Executes one op to its end.
pub(crate) fn execute(guest: &Guest, op: &Op) -> Result<Value, Refusal> {
    match op {
        Op::Read { page, count } => answer(&access::read(guest, *page, *count)?),
        Op::Touch { page, count } => answer(&access::touch(guest, *page, *count)?),
        Op::KernelRead { page, count } => answer(&access::kernel_read(guest, *page, *count)?),
        Op::Write { page, count, stamp, at } => {
            answer(&access::write(guest, *page, *count, *stamp, *at)?)
        }
        Op::Verify { page, count, expect } => {
            answer(&access::verify(guest, *page, *count, expect)?)
        }
        Op::Madvise { page, count } => answer(&access::madvise(guest, *page, *count)?),
        Op::MadviseBytes { page, at, len } => {
            answer(&access::madvise_bytes(guest, *page, *at, *len)?)
        }
        Op::Free { page, count } => answer(&access::free(guest, *page, *count)?),
        Op::Unmap { page, count } => answer(&access::unmap(guest, *page, *count)?),
        Op::Cover { page, count } => answer(&access::cover(guest, *page, *count)?),
        Op::Protect { page, count } => answer(&access::protect(guest, *page, *count)?),
        Op::Barrier { name, parties } => answer(&guest.meet(name, *parties)?),
        Op::Calm => {
            let storm = lock(&guest.storm).take();
            answer(&storm.map_or(Ok(0), Storm::calm)?)
        }
        Op::Sleep { micros } => answer(&sleep(Duration::from_micros(*micros))),
        Op::Program { steps, repeat } => {
            answer(&steps::run(steps, *repeat, |op| execute(guest, op)))
        }
        Op::Random(soak) => answer(&soak::run(guest, soak)?),
        Op::Bench(bench) => answer(&bench::touches(guest, bench)?),
        Op::Roam { page, count, reads, seed } => {
            answer(&bench::roam(guest, *page, *count, *reads, *seed)?)
        }
        Op::MadviseBench { page, count, run } => {
            answer(&bench::madvises(guest, *page, *count, *run)?)
        }
        Op::Pagemap { page, count } => answer(&tables::pagemap(guest, *page, *count)?),
        Op::Rss => answer(&tables::rss(guest)?),
        Op::Whereabouts => answer(&guest.tracks.whereabouts()),
        Op::Exec => Err(Command::new("sleep").arg("600").stdin(Stdio::null()).exec().into()),
        Op::Crowd { on } => answer(&crowd(guest, *on)?),
        Op::WakeAll => answer(&wake_all(guest)?),
        Op::SetNonblocking { on } => answer(&set_nonblocking(guest.uffd.as_fd(), *on)?),
        Op::CloseSocket => answer(&drop(lock(&guest.socket).take())),
        Op::ReuseNumber { keep } => answer(&reuse_number(guest, *keep)?),
        Op::Die { how, after_touches } => answer(&guest.fate.seal(*how, *after_touches)),
        Op::Exit => answer(&()),
    }
}

fn answer(answer: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(answer).map_err(|error| Refusal::new(error.to_string()))
}

fn reuse_number(guest: &Guest, keep: bool) -> Result<(), Refusal> {
    let first = guest.uffd.as_fd();
    if keep {
        let kept = first.try_clone_to_owned();
        // Open until the guest's end.
        std::mem::forget(kept.map_err(|error| Refusal::new(error.to_string()))?);
    }
    let other = create_user_mode_only(sys::UFFD_FEATURE_EVENT_REMOVE)?;
    Ok(replace(first, other.as_fd())?)
}

fn crowd(guest: &Guest, on: bool) -> Result<(), Refusal> {
    let mut crowd = lock(&guest.crowd);
    match crowd.take() {
        before if on == before.is_some() => *crowd = before,
        Some(before) => before.unmap_part(0, before.len())?,
        None => *crowd = Some(Mapping::as_many_as_possible()?),
    }
    Ok(())
}

fn wake_all(guest: &Guest) -> Result<(), Refusal> {
    for region in &guest.memory.regions {
        let len = bytes(region.pages * guest.memory.page_size);
        guest
            .uffd
            .wake(region.address as *mut _, len)
            .map_err(|error| Refusal::new(format!("{error:?}")))?;
    }
    Ok(())
}
