//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use thiserror::Error;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
uffd-rs-guardian: serves the guests of a state directory whenever their server cannot

usage: uffd-rs-guardian --state-dir DIR [options]

A server with a guardian starts it by itself. It waits for the server's end, serves all guests from
that moment on, and gives them back to the next server. It ends when no server is there and no guest
is left.

  --state-dir DIR   the directory that the server keeps its guests in
  --detach          leaves a guardian behind, in a session of its own, and ends once it listens
  --cgroup PATH     a cgroup (v2) for it, made if need be, so that it is not ended with the server's
  --log FILE        appends a line here for each guest that it serves or gives back
                    (default: standard error; nowhere with --detach)
  --version         its version
  --help            this text

Exit status: 0, or 1 if it could not start (another guardian is there, for one), or 2 if it was
called wrongly.
";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Run(Options),
}

/// How the guardian is to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) state_dir: PathBuf,
    pub(crate) way: Way,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
}

/// In which process it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In this one.
    Here,
    /// In another one that outlives this one.
    Detach,
    /// In this one, which [`Way::Detach`] has started.
    LeftBehind,
}

/// What [`Way::Detach`] starts this program with.
pub(crate) const LEFT_BEHIND: &str = "left-behind";

/// A command line that cannot be obeyed.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    #[error("{0}; see --help")]
    Wrong(#[from] lexopt::Error),
    #[error("--state-dir is missing; see --help")]
    NoStateDir,
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = Parser::from_args(args);
    let (mut state_dir, mut cgroup, mut log) = (None, None, None);
    let mut way = Way::Here;
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("state-dir") => state_dir = Some(path(&mut parser, "--state-dir")?),
            Arg::Long("cgroup") => cgroup = Some(path(&mut parser, "--cgroup")?),
            Arg::Long("log") => log = Some(path(&mut parser, "--log")?),
            Arg::Long("detach") => way = Way::Detach,
            Arg::Long(name) if name == LEFT_BEHIND => way = Way::LeftBehind,
            Arg::Long("version") | Arg::Short('V') => return Ok(Command::Version),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let state_dir = state_dir.ok_or(UsageError::NoStateDir)?;
    Ok(Command::Run(Options { state_dir, way, cgroup, log }))
}

/// Absolute: it changes its working directory.
fn path(parser: &mut Parser, option: &str) -> Result<PathBuf, lexopt::Error> {
    let value: PathBuf = parser.value()?.parse()?;
    std::path::absolute(&value).map_err(|error| {
        lexopt::Error::Custom(format!("{option} \"{}\": {error}", value.display()).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_line_is_understood() {
        let line = "--state-dir /run/a --detach --cgroup=/sys/fs/cgroup/b --log /tmp/c";
        let Ok(Command::Run(options)) = parsed(line) else { panic!("it is a good line") };
        assert_eq!(options.state_dir, PathBuf::from("/run/a"));
        assert_eq!(options.way, Way::Detach);
        assert_eq!(options.cgroup, Some(PathBuf::from("/sys/fs/cgroup/b")));
        assert_eq!(options.log, Some(PathBuf::from("/tmp/c")));
        assert!(matches!(parsed("--help"), Ok(Command::Help)));
        assert!(matches!(parsed("--version"), Ok(Command::Version)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("--state-dir", "--state-dir"),
            ("--state-dir /a --wat", "--wat"),
            ("--state-dir /a what", "what"),
            ("--state-dir /a --log=", "--log"),
            ("--detach", "--state-dir is missing"),
        ] {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
