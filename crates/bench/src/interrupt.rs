//! An interrupted benchmark ends after the run under way, so that snapshots and huge pages are
//! given back.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::Result;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Waits for signals. To be called before there are other threads, which inherit the mask.
pub(crate) fn watch() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("uffd-bench: ending after this run; interrupt again to end at once");
        }
    })?;
    Ok(())
}

/// Whether to end.
pub(crate) fn is_asked_for() -> bool {
    ASKED.load(Ordering::Relaxed)
}
