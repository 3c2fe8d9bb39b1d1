//! What the guardian tells: a line for each guest that it serves or gives back, and each trouble.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Lines that may wait to be written; more are lost.
const MOST_WAITING: usize = 4096;

/// How long the last ones may take, when there is nothing else to do.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Takes lines, which a thread of its own writes: a disk may not answer, and whoever reads a pipe may
/// be frozen, while guests wait for whoever tells.
#[derive(Debug)]
pub(crate) struct Log {
    writer: Option<Writer>,
    /// Lines that were not taken since the last that was.
    lost: u64,
}

#[derive(Debug)]
struct Writer {
    lines: Sender<String>,
    /// Nothing is ever sent: its sender goes when all is written.
    is_over: Receiver<()>,
}

impl Log {
    pub(crate) fn stderr() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    pub(crate) const fn nowhere() -> Self {
        Self { writer: None, lost: 0 }
    }

    pub(crate) fn file(path: &Path) -> Result<Self, String> {
        let file: io::Result<File> =
            OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        file.and_then(Self::to)
            .map_err(|error| format!("cannot log to {}: {error}", path.display()))
    }

    fn to(mut place: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = bounded::<String>(MOST_WAITING);
        let (over, is_over) = bounded::<()>(0);
        thread::Builder::new().name("uffd-log".to_owned()).spawn(move || {
            let _over = over;
            for line in waiting {
                // Where that cannot be it is lost: guests are served all the same.
                let _ = place.write_all(line.as_bytes());
            }
        })?;
        Ok(Self { writer: Some(Writer { lines, is_over }), lost: 0 })
    }

    /// One line, with the seconds since 1970 before it.
    #[expect(clippy::disallowed_methods, reason = "it is for people, and nothing depends on it")]
    pub(crate) fn line(&mut self, text: &str) {
        let Some(Writer { lines, .. }) = &self.writer else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(" ({lost} lines before this one are lost)"),
        };
        let line = format!("{}.{:03} {text}{lost}\n", now.as_secs(), now.subsec_millis());
        self.lost = match lines.try_send(line) {
            Ok(()) => 0,
            Err(_) => self.lost + 1,
        };
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(Writer { lines, is_over }) = self.writer.take() {
            drop(lines);
            let _ = is_over.recv_timeout(WRITTEN_WITHIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    /// Takes nothing until it is let.
    struct Stuck {
        begun: Sender<()>,
        let_go: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            // Let once and for all.
            let _ = self.let_go.recv();
            let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_lines_to_be_written_and_it_is_told_how_many_are_lost() {
        let ((begun, is_begun), (let_it, let_go), (written, lines)) =
            (unbounded(), unbounded(), unbounded());
        let mut log = Log::to(Stuck { begun, let_go, written }).unwrap();
        log.line("first");
        is_begun.recv().unwrap();
        (0..MOST_WAITING + 10).for_each(|number| log.line(&number.to_string()));
        assert_eq!(log.lost, 10);
        drop(let_it);
        let taken: Vec<_> = lines.iter().take(1 + MOST_WAITING).collect();
        assert!(taken[0].ends_with(" first\n") && taken[MOST_WAITING].ends_with(" 4095\n"));
        log.line("and on");
        let last = lines.recv().unwrap();
        assert!(last.ends_with(" and on (10 lines before this one are lost)\n"), "{last}");
        drop(log);
        assert!(lines.recv().is_err(), "the writer is gone");
    }
}
