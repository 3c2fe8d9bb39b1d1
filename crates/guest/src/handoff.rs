//! How the guest introduces itself: a userfaultfd over its memory, sent with a description.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use userfaultfd::{FeatureFlags, RegisterMode, Uffd, UffdBuilder};

use crate::memory::{Memory, Region, bytes};
use crate::options::{Dialect, Options, Register, Split, UserModeOnly};
use crate::pattern::Pattern;
use crate::raw::create_user_mode_only;
use crate::storm::Storm;

/// A region as Firecracker describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionJson {
    /// Its address in the guest process.
    pub base_host_virt_addr: u64,
    /// Its bytes.
    pub size: u64,
    /// Where its bytes start in the snapshot.
    pub offset: u64,
    /// The page size, since 1.12.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page_size: Option<u64>,
    /// The page size since 1.7, in bytes whatever the name says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page_size_kib: Option<u64>,
}

/// Why there was no handoff.
#[derive(Debug, Error)]
pub enum HandoffError {
    /// There is no userfaultfd to be had.
    #[error("cannot create a userfaultfd: {0}")]
    Create(String),
    /// The kernel refuses to register a region.
    #[error("cannot register {pages} pages at {address:#x}: {reason}")]
    Register {
        /// The address of the region.
        address: u64,
        /// Its size.
        pages: u64,
        /// What the kernel says.
        reason: String,
    },
    /// The kernel has no memory for a page that is to be there.
    #[error("there is no memory for page {page}")]
    Populate {
        /// Which.
        page: u64,
    },
    /// The kernel refuses to write-protect a page.
    #[error("cannot write-protect page {page}: {reason}")]
    Protect {
        /// Which.
        page: u64,
        /// What the kernel says.
        reason: String,
    },
    /// The handler does not listen, or hung up.
    #[error("cannot hand off: {0}")]
    Send(#[from] io::Error),
}

/// What the guest keeps of the handoff.
#[derive(Debug)]
pub(crate) struct HandedOff {
    /// Like Firecracker, the guest keeps its own copy of the descriptor.
    pub(crate) uffd: Uffd,
    pub(crate) user_mode_only: bool,
    pub(crate) socket: Option<UnixStream>,
    pub(crate) storm: Option<Storm>,
}

/// Creates and registers the userfaultfd and sends it, as the options say.
pub(crate) fn hand_off(options: &Options, memory: &Memory) -> Result<HandedOff, HandoffError> {
    let (uffd, user_mode_only) = create(options)?;
    if options.map_file.is_some() {
        return Ok(HandedOff { uffd, user_mode_only, socket: None, storm: None });
    }
    // A registered page could be had from the handler alone.
    for page in populated(options, memory) {
        populate(memory, &options.pattern, page)?;
    }
    register(&uffd, memory, options.register)?;
    if options.register == Register::WriteProtect {
        protect_populated(&uffd, options, memory)?;
    }
    let storm = match options.storm {
        0 => None,
        threads => Some(Storm::begin(memory, threads)?),
    };
    let socket = UnixStream::connect(&options.socket)?;
    if !options.silent {
        send(&socket, options, memory, &uffd)?;
    }
    let socket = (!options.close_socket).then_some(socket);
    Ok(HandedOff { uffd, user_mode_only, socket, storm })
}

fn create(options: &Options) -> Result<(Uffd, bool), HandoffError> {
    let build = |user_mode_only| {
        UffdBuilder::new()
            .close_on_exec(true)
            .non_blocking(true)
            .user_mode_only(user_mode_only)
            .require_features(FeatureFlags::from_bits_retain(options.features))
            .create()
    };
    let of_kernel_too = match options.user_mode_only {
        UserModeOnly::No => return build(false).map(|uffd| (uffd, false)).map_err(refused),
        UserModeOnly::Yes => None,
        UserModeOnly::Auto => build(false).ok(),
    };
    if let Some(uffd) = of_kernel_too {
        return Ok((uffd, false));
    }
    let uffd = create_user_mode_only(options.features);
    uffd.map(|uffd| (uffd, true)).map_err(|errno| HandoffError::Create(errno.to_string()))
}

fn refused(error: userfaultfd::Error) -> HandoffError {
    use std::error::Error;
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    HandoffError::Create(format!("{error}{source}"))
}

fn register(uffd: &Uffd, memory: &Memory, register: Register) -> Result<(), HandoffError> {
    let mode = match register {
        Register::Missing => RegisterMode::MISSING,
        Register::WriteProtect => RegisterMode::MISSING | RegisterMode::WRITE_PROTECT,
    };
    for &Region { address, pages, .. } in &memory.regions {
        let len = bytes(pages * memory.page_size);
        uffd.register_with_mode(address as *mut _, len, mode).map_err(|error| {
            HandoffError::Register { address, pages, reason: format!("{error:?}") }
        })?;
    }
    Ok(())
}

/// The first pages of each region.
fn populated(options: &Options, memory: &Memory) -> impl Iterator<Item = u64> {
    let count = options.populate;
    memory.regions.iter().flat_map(move |it| it.page..it.page + count.min(it.pages))
}

/// Has a page be there as the snapshot has it.
fn populate(memory: &Memory, pattern: &Pattern, page: u64) -> Result<(), HandoffError> {
    if memory.store(page, 0, 0) != Ok(Ok(())) {
        return Err(HandoffError::Populate { page });
    }
    if !pattern.is_zero(page) {
        memory.fill(page, pattern, 0).expect("regions have their pages");
    }
    Ok(())
}

fn protect_populated(uffd: &Uffd, options: &Options, memory: &Memory) -> Result<(), HandoffError> {
    for page in populated(options, memory) {
        let address = memory.address(page).expect("regions have their pages");
        uffd.write_protect(address as *mut _, bytes(memory.page_size))
            .map_err(|error| HandoffError::Protect { page, reason: format!("{error:?}") })?;
    }
    Ok(())
}

/// The body of the handoff.
fn body(options: &Options, memory: &Memory) -> String {
    if let Some(json) = &options.raw_json {
        return json.clone();
    }
    let regions = memory.regions.iter().map(|region| RegionJson {
        base_host_virt_addr: region.address,
        size: region.pages * memory.page_size,
        offset: region.page * memory.page_size,
        page_size: (options.dialect == Dialect::V1_12).then_some(memory.page_size),
        page_size_kib: (options.dialect != Dialect::V1_1).then_some(memory.page_size),
    });
    serde_json::to_string(&regions.collect::<Vec<_>>()).expect("numbers under fixed names")
}

/// Between the pieces of a split body; long enough that the receiver sees each alone.
const PAUSE: Duration = Duration::from_millis(30);

fn send(socket: &UnixStream, options: &Options, memory: &Memory, uffd: &Uffd) -> io::Result<()> {
    let body = body(options, memory);
    let extra = extra_files(options.extra_fds)?;
    let own = (!options.no_fd).then_some(uffd.as_fd().as_raw_fd());
    let fds: Vec<RawFd> = own.into_iter().chain(extra.iter().map(AsRawFd::as_raw_fd)).collect();

    let third = body.len() / 3;
    let pieces = match options.split {
        None => vec![body.as_bytes()],
        Some(_) => {
            let (first, rest) = body.as_bytes().split_at(third);
            let (second, last) = rest.split_at(third);
            vec![first, second, last]
        }
    };
    let with_fds = if options.split == Some(Split::Last) { pieces.len() - 1 } else { 0 };
    for (index, piece) in pieces.into_iter().enumerate() {
        if index > 0 {
            sleep(PAUSE);
        }
        let fds: &[RawFd] = if index == with_fds { &fds } else { &[] };
        send_piece(socket, piece, fds)?;
    }
    Ok(())
}

fn send_piece(socket: &UnixStream, piece: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let rights: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let body = [IoSlice::new(piece)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &body, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent < piece.len() {
        return send_piece(socket, &piece[sent..], &[]);
    }
    Ok(())
}

/// Descriptors to send beside the userfaultfd.
fn extra_files(count: u32) -> io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| File::open("/dev/null").map(OwnedFd::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Place;

    fn described(dialect: Dialect) -> Vec<RegionJson> {
        let memory = Memory::map(&[3, 2], 4096, Place::Rising).unwrap();
        let options = Options::new("/s", [3, 2], Pattern::new(0, 4096));
        let options = Options { dialect, ..options };
        serde_json::from_str(&body(&options, &memory)).unwrap()
    }

    #[test]
    fn each_version_sends_the_fields_it_has() {
        let sizes = |dialect| {
            let region = described(dialect).remove(1);
            assert_eq!((region.size, region.offset), (2 * 4096, 3 * 4096));
            (region.page_size, region.page_size_kib)
        };
        assert_eq!(sizes(Dialect::V1_1), (None, None));
        assert_eq!(sizes(Dialect::V1_7), (None, Some(4096)));
        assert_eq!(sizes(Dialect::V1_12), (Some(4096), Some(4096)));
    }
}
