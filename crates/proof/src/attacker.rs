//! A process of peers that a server is attacked by.

use std::io::{BufRead, BufReader, Result};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};

use crate::cast::Cast;
use crate::malice::Attack;
use crate::observe::DEADLINE;

/// Peers of a server in this process. They stay as long as it lives.
#[derive(Debug)]
pub struct Attacker {
    process: Child,
    channel: UnixStream,
}

impl Attacker {
    /// Attacks whoever listens on `socket`. Of this process it has two userfaultfds: one for its
    /// own memory, and that of a guest which is being served.
    ///
    /// # Panics
    /// If no process can be started.
    pub fn start(
        cast: &Cast,
        attack: &Attack,
        socket: &Path,
        [servers, guests]: [BorrowedFd<'_>; 2],
    ) -> Self {
        let (channel, theirs) = UnixStream::pair().expect("a pair of sockets");
        channel.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let process = Command::new(cast.program())
            .arg("attacker")
            .arg(socket)
            .arg(serde_json::to_string(attack).expect("an attack can be written down"))
            .args([servers, guests].map(|fd| fd.as_raw_fd().to_string()))
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("another process");
        Self { process, channel }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// Waits until everything is sent: the server has taken it all, or refused to.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn wait_until_sent(&self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(&self.channel).read_line(&mut line)?;
        assert_eq!(line, "sent\n", "an attacker says");
        Ok(())
    }

    /// Ends it, with all it has connected.
    pub fn end(mut self) {
        let _ = self.channel.shutdown(Shutdown::Both);
        let _ = self.process.wait();
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
