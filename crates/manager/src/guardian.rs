//! A guardian of another version: it has the lock and the socket of one, and says its version to
//! whoever comes.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, listen, recv,
    send, socket,
};
use serde_json::json;

use super::voice::say;

/// Until it is killed.
pub(crate) fn stand_in(dir: &Path, version: u32) -> io::Result<()> {
    let lock = File::create(dir.join("guardian.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    bind(&socket, &SocketAddrUnix::new(dir.join("guardian.sock"))?)?;
    listen(&socket, 1)?;
    say(&json!({ "started": std::process::id() }));
    let welcome = json!({ "welcome": { "version": version } }).to_string();
    loop {
        let server = accept(&socket)?;
        send(&server, welcome.as_bytes(), SendFlags::NOSIGNAL)?;
        // Until it has hung up.
        while recv(&server, &mut [0_u8; 4096], RecvFlags::empty()).is_ok_and(|(len, _)| len > 0) {}
    }
}
