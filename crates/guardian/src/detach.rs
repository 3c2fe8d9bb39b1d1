//! Outliving whoever started it: a process of its own session, with nobody's terminal, pipes,
//! descriptors or environment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};
use uffd_core::kernel::pass_on_nothing;

use super::failure::{Failure, NAMED};
use super::options::{LEFT_BEHIND, Options};

/// What it says once it listens.
const LISTENS: &str = "listens\n";

/// Starts this program again, to stay, and waits until it listens.
pub(crate) fn leave_behind(options: &Options) -> Result<(), Failure> {
    pass_on_nothing()?;
    // Also where the file has been replaced since this process was started.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("uffd-rs-guardian").env_clear();
    command.arg(format!("--{LEFT_BEHIND}")).arg("--state-dir").arg(&options.state_dir);
    for (name, path) in [("--cgroup", &options.cgroup), ("--log", &options.log)] {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if heard(child.stdout.take())? == LISTENS {
        return Ok(());
    }
    let why = heard(child.stderr.take())?;
    let status = child.wait()?;
    Err(match why.trim() {
        "" => format!("it did not stay: {status}").into(),
        why => why.strip_prefix(NAMED).unwrap_or(why).into(),
    })
}

/// What is said until the end.
fn heard(from: Option<impl Read>) -> io::Result<String> {
    let mut said = Vec::new();
    if let Some(mut from) = from {
        from.read_to_end(&mut said)?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// In the process that stays: no terminal, nobody's directory, a name that says what it is.
pub(crate) fn own_session() -> Result<(), Failure> {
    setsid()?;
    // It was started as /proc/self/exe.
    prctl::set_name(c"uffd-guardian")?;
    umask(Mode::from_bits_truncate(0o077));
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Moves this process into a cgroup (v2).
pub(crate) fn enter(cgroup: &Path) -> Result<(), Failure> {
    let enter = || {
        let is_new = match fs::create_dir(cgroup) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            made => made.is_ok(),
        };
        let procs = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"));
        let entered = procs.and_then(|mut procs| procs.write_all(b"0"));
        if is_new && entered.is_err() {
            let _ = fs::remove_dir(cgroup);
        }
        entered
    };
    enter().map_err(|error| format!("cannot enter the cgroup {}: {error}", cgroup.display()).into())
}

/// Tells whoever waits for it, and lets go of what both have.
pub(crate) fn tell_that_it_listens() -> Result<(), Failure> {
    let mut out = io::stdout();
    out.write_all(LISTENS.as_bytes())?;
    out.flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stderr(&null)?;
    // The last one: its end is what is waited for.
    dup2_stdout(&null)?;
    Ok(())
}
