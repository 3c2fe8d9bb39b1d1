//! Starting a service with descriptors: they are sent to a process that becomes the service, where the
//! kernel gives them the numbers from 3 on.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;
use serde_json::json;

use super::Failure;
use super::orders::Options;
use super::store::Store;
use super::voice::say;

/// The most descriptors of one service.
const MOST: usize = 128;

/// Starts the service; what it writes, what it tells its manager and how it ends is told.
pub(crate) fn start(
    store: &Arc<Store>,
    options: &Options,
    program: &[String],
    env: &BTreeMap<String, String>,
) -> Result<Pid, Failure> {
    let (names, fds): (Vec<_>, Vec<_>) = store.inheritance()?.into_iter().unzip();
    let (ours, theirs) = UnixDatagram::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("exec").args(program).stdin(Stdio::from(OwnedFd::from(theirs)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("NOTIFY_SOCKET", &options.notify).env("FDSTORE", options.store.to_string());
    if !fds.is_empty() {
        command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    }
    if let Some(every) = options.watchdog_usec {
        command.env("WATCHDOG_USEC", every.to_string());
    }
    let mut child = command.envs(env).spawn()?;
    send(&ours, &fds)?;
    let pid = Pid::from_child(&child);
    say(&json!({ "started": child.id() }));
    let outputs = [
        child.stdout.take().map(|stdout| tell("line", stdout)),
        child.stderr.take().map(|stderr| tell("error", stderr)),
    ];
    let store = Arc::clone(store);
    thread::spawn(move || {
        let status = child.wait();
        for output in outputs.into_iter().flatten() {
            let _ = output.join();
        }
        // What it has told before its end is told before that as well.
        let _ = store.catch_up();
        let (code, signal) = status.map_or((None, None), |it| (it.code(), it.signal()));
        say(&json!({ "ended": { "code": code, "signal": signal } }));
    });
    Ok(pid)
}

fn tell(word: &'static str, output: impl Read + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            say(&json!({ word: line }));
        }
    })
}

fn send(socket: &UnixDatagram, fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(b"all")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Takes the descriptors that come by the standard input, and becomes the service.
pub(crate) fn become_service(program: &[String]) -> Result<(), Failure> {
    let (program, args) = program.split_first().ok_or("no program")?;
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    recvmsg(io::stdin(), &mut pieces, &mut control, RecvFlags::empty())?;
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    for (number, fd) in (3..).zip(fds) {
        if fd.as_raw_fd() != number {
            return Err(format!("a descriptor has the number {}", fd.as_raw_fd()).into());
        }
        // It stays open for the service.
        let _ = fd.into_raw_fd();
    }
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let pid = std::process::id().to_string();
    for (name, needs) in [("LISTEN_PID", "LISTEN_FDS"), ("WATCHDOG_PID", "WATCHDOG_USEC")] {
        if std::env::var_os(needs).is_some() && std::env::var_os(name).is_none() {
            command.env(name, &pid);
        }
    }
    Err(command.exec().into())
}
