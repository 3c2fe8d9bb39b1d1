//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use crate::workloads;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
uffd-bench: what page faults cost under uffd-rs, beside the least handler there can be

usage: uffd-bench [options]

  --quick          smaller guests and 3 rounds: about two minutes
  --rounds N       rounds of each workload (default 5, with --quick 3)
  --only NAME      only this workload; `cold-` means all that begin so; may be repeated
  --list           names and describes the workloads
  --json FILE      where the figures go (default bench-results/TIME.json)
  --plots DIR      also draws charts as SVG into this directory, and writes results.md
  --free           leaves it to the scheduler where threads run; otherwise handlers stay on the
                   first core and guests on the others, so that one round is like the next
  --dir DIR        where snapshots are kept meanwhile (default: the system's directory for
                   temporary files); on tmpfs a cold snapshot cannot be measured
  --help           this text

A target that is missed is no failure: the exit status tells only whether everything ran.
";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    List,
    Run(Options),
}

/// How the benchmarks are to be run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: Option<u64>,
    pub(crate) only: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plots: Option<PathBuf>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) free: bool,
}

/// A command line that cannot be obeyed.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    #[error("{0} is not an option; see --help")]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(String),
    #[error("--rounds is {0:?}, expected a number from 1 on")]
    Rounds(String),
    #[error("--only {0:?} is no workload; see --list")]
    NoWorkload(String),
}

impl Options {
    /// Reads a command line, without the name of the program.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let arg = arg.to_string_lossy().into_owned();
            let mut value = || args.next().ok_or_else(|| UsageError::NoValue(arg.clone()));
            match arg.as_str() {
                "--help" | "-h" => return Ok(Command::Help),
                "--list" => return Ok(Command::List),
                "--quick" => options.quick = true,
                "--free" => options.free = true,
                "--rounds" => options.rounds = Some(rounds(value()?)?),
                "--only" => options.only.push(known(value()?)?),
                "--json" => options.json = Some(value()?.into()),
                "--plots" => options.plots = Some(value()?.into()),
                "--dir" => options.dir = Some(value()?.into()),
                _ => return Err(UsageError::Unknown(arg)),
            }
        }
        Ok(Command::Run(options))
    }

    /// How often each workload is repeated.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// The command that gives figures like these.
    pub(crate) fn command(&self) -> String {
        let script = if self.quick { "npm run bench:quick" } else { "npm run bench" };
        let mut command = script.to_owned();
        if self.free || self.rounds.is_some() || !self.only.is_empty() {
            command.push_str(" --");
        }
        if self.free {
            command.push_str(" --free");
        }
        if let Some(rounds) = self.rounds {
            command.push_str(&format!(" --rounds {rounds}"));
        }
        self.only.iter().for_each(|name| command.push_str(&format!(" --only {name}")));
        command
    }

    /// Whether a workload is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|asked| is_meant(asked, name))
    }
}

/// A name, or its beginning and a dash.
fn is_meant(asked: &str, name: &str) -> bool {
    name == asked || asked.ends_with('-') && name.starts_with(asked)
}

fn rounds(value: OsString) -> Result<u64, UsageError> {
    let value = value.to_string_lossy().into_owned();
    value.parse().ok().filter(|&rounds| rounds > 0).ok_or(UsageError::Rounds(value))
}

fn known(asked: OsString) -> Result<String, UsageError> {
    let asked = asked.to_string_lossy().into_owned();
    let known = workloads::ALL.iter().any(|workload| is_meant(&asked, workload.name));
    if known { Ok(asked) } else { Err(UsageError::NoWorkload(asked)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_are_read() {
        let Ok(Command::Run(options)) = parse("--quick --rounds 7 --only random") else { panic!() };
        assert!(options.quick && options.rounds() == 7);
        assert!(options.wants("random") && !options.wants("cold-random"));
        assert_eq!(options.command(), "npm run bench:quick -- --rounds 7 --only random");
        let Ok(Command::Run(options)) = parse("--only cold-") else { panic!() };
        assert!(options.wants("cold-random") && !options.wants("random"));
        assert!(matches!(parse("--list"), Ok(Command::List)));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |line| parse(line).unwrap_err().to_string();
        assert_eq!(message("--fast"), "--fast is not an option; see --help");
        assert_eq!(message("--json"), "--json needs a value");
        assert_eq!(message("--rounds 0"), r#"--rounds is "0", expected a number from 1 on"#);
        assert_eq!(message("--only tea"), r#"--only "tea" is no workload; see --list"#);
    }
}
