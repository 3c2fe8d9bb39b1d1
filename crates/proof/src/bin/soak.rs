//! A soak from the command line: `cargo soak --seconds 60`.

use std::process::ExitCode;
use std::time::Duration;

use uffd_proof::soak::Soak;
use uffd_proof::{HUGE, SMALL};

const HELP: &str = "\
uffd-soak: random accesses by many threads of a guest, every byte checked

usage: cargo soak [options]

  --seconds N        how long, for each mode (default 10)
  --accesses N       and until there were so many accesses (default 0)
  --removes N        and so many pages or runs of pages given back (default 0)
  --threads N        threads of the guest (default 4)
  --page-size BYTES  4096, 2097152, or both (default)
  --tracking HOW     on, off, or both (default)
  --pages N          pages of the guest (default 2048 small or 16 huge ones, which are reserved
                     for the time and given back)
  --seed N           of the snapshot and of all choices (default 1); two runs with the same seed
                     make the same choices, and threads meet differently all the same
  --no-prefault      no prefaults and exports beside the guest's own work
  --no-fault-around  exactly one page for each fault
  --help             this text

Prints what happened in each mode. The exit status is 0 if every byte was right and everything
added up, 1 if not, 2 if the command line was wrong. Takes a userfaultfd that sees faults of the
kernel, and the right to change the number of huge pages: run it as root.
";

/// The first argument of a process that is to be the guest.
const GUEST: &str = "guest";

struct Wanted {
    seconds: u64,
    accesses: u64,
    removes: u64,
    threads: u32,
    page_sizes: Vec<u64>,
    tracking: Vec<bool>,
    pages: Option<u64>,
    seed: u64,
    prefault: bool,
    fault_around: bool,
}

fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Wanted>, String> {
    let mut wanted = Wanted {
        seconds: 10,
        accesses: 0,
        removes: 0,
        threads: 4,
        page_sizes: vec![SMALL, HUGE],
        tracking: vec![false, true],
        pages: None,
        seed: 1,
        prefault: true,
        fault_around: true,
    };
    let mut args = args.into_iter();
    while let Some(option) = args.next() {
        let mut text = || args.next().ok_or_else(|| format!("{option} needs a value"));
        let number = |value: String| {
            value.parse::<u64>().map_err(|_| format!("{option} is {value:?}, expected a number"))
        };
        match option.as_str() {
            "--seconds" => wanted.seconds = number(text()?)?,
            "--accesses" => wanted.accesses = number(text()?)?,
            "--removes" => wanted.removes = number(text()?)?,
            "--threads" => {
                wanted.threads = match u32::try_from(number(text()?)?) {
                    Ok(threads @ 1..=1024) => threads,
                    _ => return Err("--threads expects 1 to 1024".to_owned()),
                }
            }
            "--page-size" => {
                wanted.page_sizes = match text()?.as_str() {
                    "4096" => vec![SMALL],
                    "2097152" => vec![HUGE],
                    "both" => vec![SMALL, HUGE],
                    other => {
                        return Err(format!(
                            "--page-size is {other:?}, expected 4096, 2097152 or both"
                        ));
                    }
                }
            }
            "--tracking" => {
                wanted.tracking = match text()?.as_str() {
                    "on" => vec![true],
                    "off" => vec![false],
                    "both" => vec![false, true],
                    other => {
                        return Err(format!("--tracking is {other:?}, expected on, off or both"));
                    }
                }
            }
            "--pages" => match number(text()?)? {
                0 => return Err("--pages expects at least 1".to_owned()),
                pages => wanted.pages = Some(pages),
            },
            "--seed" => wanted.seed = number(text()?)?,
            "--prefault" => wanted.prefault = true,
            "--no-prefault" => wanted.prefault = false,
            "--no-fault-around" => wanted.fault_around = false,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{option} is not an option; see --help")),
        }
    }
    Ok(Some(wanted))
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == GUEST).is_some() {
        return uffd_guest::program::main(args);
    }
    let wanted = match parse(args.map(|arg| arg.to_string_lossy().into_owned())) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("uffd-soak: {mistake}");
            return ExitCode::from(2);
        }
    };
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => {
            eprintln!("uffd-soak: cannot find itself, to run as the guest: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut all_right = true;
    for page_size in wanted.page_sizes {
        for tracking in &wanted.tracking {
            let soak = Soak {
                guest: own.clone(),
                leading: Some(GUEST.to_owned()),
                time: Duration::from_secs(wanted.seconds),
                accesses: wanted.accesses,
                removes: wanted.removes,
                threads: wanted.threads,
                page_size,
                pages: wanted.pages.unwrap_or(if page_size == HUGE { 16 } else { 2048 }),
                tracking: *tracking,
                prefault: wanted.prefault,
                fault_around: wanted.fault_around,
                seed: wanted.seed,
            };
            let on = if *tracking { "on" } else { "off" };
            println!("pages of {page_size} bytes, dirty tracking {on}, seed {}", soak.seed);
            match soak.run() {
                Ok(soaked) => {
                    print!("{soaked}");
                    all_right &= soaked.is_right();
                }
                Err(error) => {
                    println!("FAILED        {error}");
                    all_right = false;
                }
            }
            println!();
        }
    }
    if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Wanted>, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_command_line_is_understood_or_its_mistake_named() {
        let wanted = parsed("--seconds 3 --page-size 2097152 --tracking on --pages 9 --seed 4");
        let wanted = wanted.unwrap().unwrap();
        assert_eq!((wanted.seconds, wanted.pages, wanted.seed), (3, Some(9), 4));
        assert_eq!((wanted.page_sizes, wanted.tracking), (vec![HUGE], vec![true]));
        assert!(parsed("--help").unwrap().is_none());
        for (line, word) in [
            ("--seconds", "--seconds needs a value"),
            ("--seconds x", "expected a number"),
            ("--page-size 8192", "4096, 2097152 or both"),
            ("--tracking maybe", "on, off or both"),
            ("--threads 0", "1 to 1024"),
            ("--pages 0", "at least 1"),
            ("--what", "--what is not an option"),
        ] {
            let Err(mistake) = parsed(line) else { panic!("{line}") };
            assert!(mistake.contains(word), "{mistake}");
        }
    }

    #[test]
    fn the_help_names_every_option() {
        for option in [
            "--seconds",
            "--accesses",
            "--removes",
            "--threads",
            "--page-size",
            "--tracking",
            "--pages",
            "--seed",
            "--no-prefault",
            "--no-fault-around",
        ] {
            assert!(HELP.contains(option), "{option}");
        }
    }
}
