//! How a guardian is started: by a program that leaves it behind and ends.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::error::GuardianError;
use crate::kernel::Process;
use crate::ledger::StateDir;

/// How long the program may take. It has to be loaded, and to make a socket.
const WITHIN: Duration = Duration::from_secs(5);

/// The most that is told of what it said.
const MOST_SAID: u64 = 4096;

/// How to start a guardian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// `uffd-rs-guardian`.
    pub program: PathBuf,
    /// A cgroup of its own, so that it is not ended with the server's.
    pub cgroup: Option<PathBuf>,
    /// Where it writes what it does.
    pub log: Option<PathBuf>,
}

impl Launch {
    /// Starts one, and waits until it listens or says why it does not.
    pub(super) fn start(&self, dir: &StateDir) -> Result<(), GuardianError> {
        let cannot = |cause| GuardianError::Program { program: self.program.clone(), cause };
        // A file can be read without waiting for whoever may still have it open.
        let mut said = memfd_create("uffd-guardian", MFdFlags::MFD_CLOEXEC)
            .map(File::from)
            .map_err(|errno| cannot(errno.into()))?;
        let mut command = Command::new(&self.program);
        command.arg("--detach").arg("--state-dir").arg(dir.path());
        if let Some(cgroup) = &self.cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        if let Some(log) = &self.log {
            command.arg("--log").arg(log);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(said.try_clone().map_err(cannot)?);
        let mut child = command.spawn().map_err(cannot)?;
        let has_ended = Process::of_child(&child)
            .and_then(|process| process.wait_until_exited(WITHIN))
            .map_err(|errno| cannot(errno.into()));
        if !matches!(has_ended, Ok(true)) {
            let _ = child.kill();
        }
        let status = child.wait();
        if !has_ended? {
            return Err(GuardianError::Slow { program: self.program.clone(), waited: WITHIN });
        }
        // Where nobody may wait for children, whether it listens will be seen.
        let Ok(status) = status else { return Ok(()) };
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        let _ = said.rewind();
        let _ = said.take(MOST_SAID).read_to_end(&mut text);
        let said = match String::from_utf8_lossy(&text).trim() {
            "" => status.to_string(),
            // The error names the program already.
            text => text.strip_prefix("uffd-rs-guardian: ").unwrap_or(text).to_owned(),
        };
        Err(GuardianError::GaveUp { program: self.program.clone(), said })
    }
}
