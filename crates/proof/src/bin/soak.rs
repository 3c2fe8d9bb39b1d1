//! A soak from the command line: `cargo soak --seconds 60`.

use std::process::ExitCode;
use std::time::Duration;

use uffd_proof::soak::{Adversity, Soak};
use uffd_proof::{Cast, HUGE, SMALL, roles};

const HELP: &str = "\
uffd-soak: random accesses by many threads of a guest, every byte checked

usage: cargo soak [options]

  --seconds N        how long, for each mode (default 10)
  --accesses N       and until there were so many accesses (default 0)
  --removes N        and so many pages or runs of pages given back (default 0)
  --threads N        threads of the guest (default 4)
  --page-size BYTES  4096, 2097152, or both (default)
  --tracking HOW     on, off, or both (default)
  --modes LIST       what gets in the way: plain (default), no-page-map, drained-pool, flags, or
                     several at once joined by +; these joined by commas, or all for each of the
                     four and all of them at once
  --pages N          pages of the guest (default 2048 small or 16 huge ones, which are reserved
                     for the time and given back)
  --seed N           of the snapshot and of all choices (default 1); two runs with the same seed
                     make the same choices, and threads meet differently all the same
  --no-prefault      no prefaults and exports beside the guest's own work
  --no-fault-around  exactly one page for each fault
  --help             this text

The modes: with no-page-map the handler is in another pid namespace than the guest. With
drained-pool somebody takes what the pool of huge pages has and gives it back, all the time; it
leaves small pages out. With flags the guest clears and sets O_NONBLOCK on the descriptor it shares
with its handler, all the time.

Prints what happened in each mode. The exit status is 0 if every byte was right and everything
added up, 1 if not, 2 if the command line was wrong. Takes a userfaultfd that sees faults of the
kernel, and the right to change the number of huge pages: run it as root.
";

/// A name, and what gets in the way.
type Mode = (String, Adversity);

/// What `--modes all` stands for: each on its own, and all at once.
const ALL: &str = "plain,no-page-map,drained-pool,flags,no-page-map+drained-pool+flags";

fn modes(list: &str) -> Result<Vec<Mode>, String> {
    let list = if list == "all" { ALL } else { list };
    list.split(',').map(|name| Ok((name.to_owned(), mode(name)?))).collect()
}

fn mode(name: &str) -> Result<Adversity, String> {
    let mut mode = Adversity::default();
    for part in name.split('+') {
        match part {
            "plain" => {}
            "no-page-map" => mode.no_page_map = true,
            "drained-pool" => mode.drained_pool = true,
            "flags" => mode.played_flags = true,
            _ => {
                return Err(format!(
                    "--modes has {part:?}, expected plain, no-page-map, drained-pool, flags, \
                     several of them joined by +, or all"
                ));
            }
        }
    }
    Ok(mode)
}

struct Wanted {
    seconds: u64,
    accesses: u64,
    removes: u64,
    threads: u32,
    page_sizes: Vec<u64>,
    tracking: Vec<bool>,
    modes: Vec<Mode>,
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
        modes: vec![("plain".to_owned(), Adversity::default())],
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
            "--modes" => wanted.modes = modes(&text()?)?,
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

impl Wanted {
    /// What is to be soaked, and what its mode is called.
    fn soaks(&self, cast: &Cast) -> Vec<(&str, Soak)> {
        let mut soaks = Vec::new();
        for page_size in &self.page_sizes {
            for tracking in &self.tracking {
                for (name, adversity) in &self.modes {
                    // Small pages come from no pool.
                    let skipped = *page_size == SMALL && name == "drained-pool";
                    if !skipped {
                        soaks.push((
                            name.as_str(),
                            self.soak(cast, *page_size, *tracking, *adversity),
                        ));
                    }
                }
            }
        }
        soaks
    }

    fn soak(&self, cast: &Cast, page_size: u64, tracking: bool, adversity: Adversity) -> Soak {
        let usual = if page_size == HUGE { 16 } else { 2048 };
        Soak {
            cast: cast.clone(),
            time: Duration::from_secs(self.seconds),
            accesses: self.accesses,
            removes: self.removes,
            threads: self.threads,
            page_size,
            pages: self.pages.unwrap_or(usual),
            tracking,
            prefault: self.prefault,
            fault_around: self.fault_around,
            adversity,
            seed: self.seed,
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // Of those who take part in a soak, some are processes of this program.
    if let Some(status) = roles::play(&args) {
        return status;
    }
    let args = args.iter().map(|arg| arg.to_string_lossy().into_owned());
    let wanted = match parse(args) {
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
            eprintln!("uffd-soak: cannot find itself, to run the guest: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut all_right = true;
    for (name, soak) in wanted.soaks(&Cast::new(own)) {
        let (size, on) = (soak.page_size, if soak.tracking { "on" } else { "off" });
        println!("{name}: pages of {size} bytes, dirty tracking {on}, seed {}", soak.seed);
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
        let modes = |line| parsed(line).unwrap().unwrap().modes.len();
        assert_eq!(
            (modes(""), modes("--modes flags+no-page-map,plain"), modes("--modes all")),
            (1, 2, 5)
        );
        assert!(parsed("--help").unwrap().is_none());
        for (line, word) in [
            ("--seconds", "--seconds needs a value"),
            ("--seconds x", "expected a number"),
            ("--page-size 8192", "4096, 2097152 or both"),
            ("--tracking maybe", "on, off or both"),
            ("--modes plain,flags+odd", "--modes has \"odd\""),
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
            "--modes",
            "--pages",
            "--seed",
            "--no-prefault",
            "--no-fault-around",
        ] {
            assert!(HELP.contains(option), "{option}");
        }
    }
}
