//! The command line of the guest, in both directions: the program reads it, the driver writes it.

mod named;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use userfaultfd_sys as sys;

pub use named::{Dialect, Place, Register, Split, UserModeOnly};
use named::{feature_names, features};

use crate::pattern::Pattern;

/// What `--help` prints.
pub const HELP: &str = "\
uffd-guest: a process that hands off its memory like Firecracker, then does as it is told

usage: uffd-guest --socket PATH --pages N[,N...] [options]

memory
  --pages N[,N...]         pages of each region, in the order of the snapshot
  --page-size BYTES        4096 (default) or 2097152
  --place HOW              rising: addresses rise with snapshot offsets (default)
                           falling: each region lies directly below the one before it
                           apart: rising, with a gap of 16 pages between regions
  --seed N                 seed of the snapshot's contents (default 0)
  --zero-per-mille N       of 1000 runs of 64 KiB, how many are zero in the snapshot
  --lone-zero-per-mille N  of 1000 pages, how many are zero on their own
  --populate N             the first N pages of each region are there before the handoff, as the
                           snapshot has them, and write-protected with --register wp

userfaultfd
  --user-mode-only WHEN    no (default), yes, or auto: only if the kernel refuses otherwise
  --features LIST          none, or names joined by commas (default remove): wp, fork, remap,
                           remove, unmap, sigbus, thread-id, exact-address, wp-hugetlbfs-shmem,
                           wp-unpopulated, poison, wp-async, move
  --register MODE          missing (default) or wp: missing and write protection

handoff
  --socket PATH            where the handler listens
  --dialect VERSION        1.1: no page size; 1.7: page_size_kib; 1.12: both names (default)
  --split-handoff FD       sends the body in pieces, the descriptor with the first or the last
  --extra-fds N            sends N more descriptors
  --no-fd                  sends no descriptor
  --raw-json TEXT          sends this instead of the regions
  --close-socket           closes the socket after the handoff
  --silent                 connects and says nothing
  --storm N                N threads give a page back again and again, from before the handoff
                           until they are told to be calm
  --play-flags             clears and sets O_NONBLOCK on the userfaultfd again and again
  --user ID                does all of this as this user; needs root
  --map-file FILE          no handoff at all: maps FILE as its memory, private, as Firecracker
                           does with a memory backend of type File (4 KiB pages, rising)

The program prints one line of JSON when it has handed off, then reads requests from standard
input, one JSON object a line, and answers on standard output:
  {\"id\":1,\"thread\":0,\"op\":\"read\",\"page\":0,\"count\":4}
It ends when standard input does.
";

/// Everything a guest can be told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the handler listens.
    pub socket: PathBuf,
    /// Pages of each region, in the order of the snapshot.
    pub pages: Vec<u64>,
    /// Where regions lie relative to each other.
    pub place: Place,
    /// The contents of the snapshot, and the page size.
    pub pattern: Pattern,
    /// Whether to ask for faults of user mode only.
    pub user_mode_only: UserModeOnly,
    /// `UFFD_FEATURE_*` bits.
    pub features: u64,
    /// What the regions are registered for.
    pub register: Register,
    /// Whose JSON to speak.
    pub dialect: Dialect,
    /// Send the body in pieces, the descriptor with this one.
    pub split: Option<Split>,
    /// How many more descriptors to send.
    pub extra_fds: u32,
    /// Send no descriptor.
    pub no_fd: bool,
    /// Send this instead of the regions.
    pub raw_json: Option<String>,
    /// Close the socket after the handoff.
    pub close_socket: bool,
    /// Connect and say nothing.
    pub silent: bool,
    /// How many pages of each region are there before the handoff.
    pub populate: u64,
    /// How many threads give memory back all the time.
    pub storm: u32,
    /// Clear and set O_NONBLOCK all the time.
    pub play_flags: bool,
    /// Who the guest is, if not whoever starts it.
    pub user: Option<u32>,
    /// Hand nothing off: map this file as the memory.
    pub map_file: Option<PathBuf>,
}

/// A command line that cannot be obeyed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    /// There is no such option.
    #[error("{0} is not an option; see --help")]
    Unknown(String),
    /// The option has no value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// The value is none of those which can be.
    #[error("{option} is {value:?}, expected {expected}")]
    BadValue {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What can be given.
        expected: String,
    },
    /// The option must be there.
    #[error("{0} is missing; see --help")]
    Missing(&'static str),
}

impl Options {
    /// A guest of `pages` pages with the contents of `pattern`, otherwise as stock Firecracker.
    pub fn new(socket: impl Into<PathBuf>, pages: impl Into<Vec<u64>>, pattern: Pattern) -> Self {
        Self {
            socket: socket.into(),
            pages: pages.into(),
            place: Place::Rising,
            pattern,
            user_mode_only: UserModeOnly::No,
            features: sys::UFFD_FEATURE_EVENT_REMOVE,
            register: Register::Missing,
            dialect: Dialect::V1_12,
            split: None,
            extra_fds: 0,
            no_fd: false,
            raw_json: None,
            close_socket: false,
            silent: false,
            populate: 0,
            storm: 0,
            play_flags: false,
            user: None,
            map_file: None,
        }
    }

    /// Reads a command line, without the name of the program.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut options = Self::new("", [], Pattern::new(0, 4096));
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let arg = arg.to_string_lossy();
            let Some(&option) = ALL.iter().find(|&&option| option == arg) else {
                return Err(UsageError::Unknown(arg.into_owned()));
            };
            let mut value = || args.next().ok_or(UsageError::NoValue(option));
            match option {
                "--socket" => options.socket = value()?.into(),
                "--pages" => options.pages = pages(option, &text(value()?))?,
                "--page-size" => options.pattern.page_size = page_size(option, value()?)?,
                "--place" => options.place = read(option, value()?)?,
                "--seed" => options.pattern.seed = number(option, value()?)?,
                "--zero-per-mille" => options.pattern.zero_per_mille = number(option, value()?)?,
                "--lone-zero-per-mille" => {
                    options.pattern.lone_zero_per_mille = number(option, value()?)?;
                }
                "--user-mode-only" => options.user_mode_only = read(option, value()?)?,
                "--features" => {
                    let names = text(value()?);
                    options.features = features(&names)
                        .map_err(|name| bad(option, name, "a feature of --help"))?;
                }
                "--register" => options.register = read(option, value()?)?,
                "--dialect" => options.dialect = read(option, value()?)?,
                "--split-handoff" => options.split = Some(read(option, value()?)?),
                "--extra-fds" => options.extra_fds = number(option, value()?)?,
                "--raw-json" => options.raw_json = Some(text(value()?)),
                "--populate" => options.populate = number(option, value()?)?,
                "--storm" => options.storm = number(option, value()?)?,
                "--play-flags" => options.play_flags = true,
                "--user" => options.user = Some(number(option, value()?)?),
                "--no-fd" => options.no_fd = true,
                "--close-socket" => options.close_socket = true,
                "--map-file" => options.map_file = Some(value()?.into()),
                _ => options.silent = true,
            }
        }
        if options.socket.as_os_str().is_empty() {
            return Err(UsageError::Missing("--socket"));
        }
        if options.pages.is_empty() {
            return Err(UsageError::Missing("--pages"));
        }
        Ok(options)
    }

    /// The command line which [`parse`](Self::parse) reads as these options.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: String| args.extend([option.into(), value.into()]);
        add("--pages", self.pages.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
        add("--page-size", self.pattern.page_size.to_string());
        add("--place", self.place.name().into());
        add("--seed", self.pattern.seed.to_string());
        add("--zero-per-mille", self.pattern.zero_per_mille.to_string());
        add("--lone-zero-per-mille", self.pattern.lone_zero_per_mille.to_string());
        add("--user-mode-only", self.user_mode_only.name().into());
        add("--features", feature_names(self.features));
        add("--register", self.register.name().into());
        add("--dialect", self.dialect.name().into());
        add("--extra-fds", self.extra_fds.to_string());
        add("--populate", self.populate.to_string());
        add("--storm", self.storm.to_string());
        if let Some(id) = self.user {
            add("--user", id.to_string());
        }
        if let Some(split) = self.split {
            add("--split-handoff", split.name().into());
        }
        if let Some(json) = &self.raw_json {
            add("--raw-json", json.clone());
        }
        if let Some(file) = &self.map_file {
            args.extend(["--map-file".into(), file.clone().into_os_string()]);
        }
        let flags = [
            ("--no-fd", self.no_fd),
            ("--close-socket", self.close_socket),
            ("--silent", self.silent),
            ("--play-flags", self.play_flags),
        ];
        args.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.into()));
        args.extend(["--socket".into(), self.socket.clone().into_os_string()]);
        args
    }
}

const ALL: [&str; 22] = [
    "--socket",
    "--pages",
    "--page-size",
    "--place",
    "--seed",
    "--zero-per-mille",
    "--lone-zero-per-mille",
    "--user-mode-only",
    "--features",
    "--register",
    "--dialect",
    "--split-handoff",
    "--extra-fds",
    "--raw-json",
    "--no-fd",
    "--close-socket",
    "--map-file",
    "--populate",
    "--storm",
    "--play-flags",
    "--user",
    "--silent",
];

fn text(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}

fn bad(option: &'static str, value: &str, expected: impl Into<String>) -> UsageError {
    UsageError::BadValue { option, value: value.into(), expected: expected.into() }
}

fn read<T: FromStr<Err = String>>(option: &'static str, value: OsString) -> Result<T, UsageError> {
    let value = text(value);
    value.parse().map_err(|names: String| bad(option, &value, format!("one of {names}")))
}

fn number<T: FromStr>(option: &'static str, value: OsString) -> Result<T, UsageError> {
    let value = text(value);
    value.parse().map_err(|_| bad(option, &value, "a number"))
}

fn page_size(option: &'static str, value: OsString) -> Result<u64, UsageError> {
    match number(option, value)? {
        size @ (4096 | 0x20_0000) => Ok(size),
        size => Err(bad(option, &u64::to_string(&size), "4096 or 2097152")),
    }
}

fn pages(option: &'static str, value: &str) -> Result<Vec<u64>, UsageError> {
    let sizes = value.split(',').map(|size| size.parse().ok().filter(|&size: &u64| size > 0));
    sizes
        .collect::<Option<_>>()
        .ok_or_else(|| bad(option, value, "numbers of pages joined by commas"))
}

#[cfg(test)]
mod tests {
    use super::named::FEATURES;
    use super::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        Options::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let stock = Options::new("/s", [3, 1], Pattern::new(1, 4096));
        let odd = Options {
            place: Place::Falling,
            pattern: Pattern::new(9, 0x20_0000).with_zero_runs(5).with_lone_zeros(6),
            user_mode_only: UserModeOnly::Auto,
            features: sys::UFFD_FEATURE_WP_ASYNC | sys::UFFD_FEATURE_EVENT_REMOVE,
            register: Register::WriteProtect,
            dialect: Dialect::V1_7,
            split: Some(Split::Last),
            extra_fds: 2,
            no_fd: true,
            raw_json: Some("[]".into()),
            close_socket: true,
            silent: true,
            populate: 2,
            storm: 8,
            play_flags: true,
            user: Some(65_534),
            map_file: Some("/snapshot".into()),
            ..stock.clone()
        };
        let none = Options { features: 0, ..stock.clone() };
        for options in [stock, odd, none] {
            assert_eq!(Options::parse(options.to_args()), Ok(options));
        }
    }

    #[test]
    fn the_help_names_every_option() {
        assert!(ALL.iter().all(|option| HELP.contains(option)));
        assert!(FEATURES.iter().all(|(name, _)| HELP.contains(name)));
    }

    #[test]
    fn a_mistake_is_named() {
        let message = |line| parse(line).unwrap_err().to_string();
        assert_eq!(message("--pages 1"), "--socket is missing; see --help");
        assert_eq!(message("--socket /s"), "--pages is missing; see --help");
        assert_eq!(message("--page 1"), "--page is not an option; see --help");
        assert_eq!(message("--pages"), "--pages needs a value");
        assert_eq!(
            message("--page-size 8192"),
            "--page-size is \"8192\", expected 4096 or 2097152"
        );
        assert_eq!(
            message("--place up"),
            "--place is \"up\", expected one of rising, falling, apart"
        );
    }
}
