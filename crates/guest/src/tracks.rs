//! Which page each thread touched last, for whoever asks why it does not answer.

use std::cell::OnceCell;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use nix::unistd::gettid;

use crate::lock::lock;
use crate::protocol::Whereabouts;

/// The tracks of all threads that ever touched a page.
#[derive(Debug, Default)]
pub(crate) struct Tracks(Mutex<Vec<Weak<Track>>>);

#[derive(Debug)]
struct Track {
    tid: i32,
    page: AtomicU64,
}

thread_local! {
    /// A process is one guest, so a thread has one track.
    static OWN: OnceCell<Arc<Track>> = const { OnceCell::new() };
}

impl Tracks {
    /// Notes that this thread is about to touch a page.
    pub(crate) fn follow(&self, page: u64) {
        OWN.with(|own| own.get_or_init(|| self.begin()).page.store(page, Ordering::Relaxed));
    }

    fn begin(&self) -> Arc<Track> {
        let track = Arc::new(Track { tid: gettid().as_raw(), page: AtomicU64::new(0) });
        lock(&self.0).push(Arc::downgrade(&track));
        track
    }

    /// Where each living thread is.
    pub(crate) fn whereabouts(&self) -> Vec<Whereabouts> {
        let mut tracks = lock(&self.0);
        tracks.retain(|track| track.strong_count() > 0);
        let living = tracks.iter().filter_map(Weak::upgrade).map(|track| Whereabouts {
            tid: track.tid,
            page: track.page.load(Ordering::Relaxed),
            wchan: fs::read_to_string(format!("/proc/self/task/{}/wchan", track.tid))
                .unwrap_or_default(),
        });
        living.collect()
    }
}
