//! The kill test from the command line: `cargo kill-test --kills 10000`.

use std::process::ExitCode;
use std::time::Instant;

use uffd_proof::killing::{Killed, Killing};
use uffd_proof::{Cast, HUGE, KeptMode, SMALL, Tracks, roles};

const HELP: &str = "\
uffd-kill-test: whoever serves is killed at random moments, and no guest notices

usage: cargo kill-test [options]

  --kills N          how many are killed, in all modes together (default 10000)
  --threads N        threads of each guest (default 4)
  --page-size BYTES  4096, 2097152, or both (default)
  --tracking HOW     off, on, async, or all (default): nobody tracks the guest's writes, its
                     handler does, or the kernel does (WP_ASYNC)
  --pages N          pages of a guest (default 384 small or 12 huge ones, which are reserved for
                     the time and given back)
  --guardian         beside a guardian, which is killed now and then as well
  --seed N           of the snapshot and of all choices (default 1); two runs with the same seed
                     make the same choices, and moments differ all the same
  --help             this text

Each guest reads, writes and gives memory back with all its threads for three seconds, while its
keepers are killed 0.1 to 20 ms after they began to serve it, or while they take it over, some of
them beside a prefault, an export or a hand-over. Then every byte is compared, and the pages that
the last keeper calls written with those that were.

Prints a line for each guest, with the seed that has only its choices again: --seed N --kills 1 and
its mode. The exit status is 0 if everything was right, 1 if not, 2 if the command line was wrong.
Takes a userfaultfd that sees faults of the kernel, and the right to change the number of huge
pages: run it as root.
";

struct Wanted {
    kills: u32,
    threads: u32,
    page_sizes: Vec<u64>,
    tracks: Vec<Tracks>,
    pages: Option<u64>,
    seed: u64,
    guarded: bool,
}

fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Wanted>, String> {
    const ALL: [Tracks; 3] = [Tracks::Nobody, Tracks::Handler, Tracks::Kernel];
    let mut wanted = Wanted {
        kills: 10_000,
        threads: 4,
        page_sizes: vec![SMALL, HUGE],
        tracks: ALL.to_vec(),
        pages: None,
        seed: 1,
        guarded: false,
    };
    let mut args = args.into_iter();
    while let Some(option) = args.next() {
        let mut text = || args.next().ok_or_else(|| format!("{option} needs a value"));
        let number = |value: String| {
            value.parse::<u64>().map_err(|_| format!("{option} is {value:?}, expected a number"))
        };
        match option.as_str() {
            "--kills" => {
                wanted.kills = match u32::try_from(number(text()?)?) {
                    Ok(kills @ 1..) => kills,
                    _ => return Err("--kills expects 1 to 4294967295".to_owned()),
                }
            }
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
                wanted.tracks = match text()?.as_str() {
                    "off" => vec![Tracks::Nobody],
                    "on" => vec![Tracks::Handler],
                    "async" => vec![Tracks::Kernel],
                    "all" => ALL.to_vec(),
                    other => {
                        return Err(format!(
                            "--tracking is {other:?}, expected off, on, async or all"
                        ));
                    }
                }
            }
            "--pages" => match number(text()?)? {
                pages @ 3.. => wanted.pages = Some(pages),
                _ => return Err("--pages expects at least 3".to_owned()),
            },
            "--seed" => wanted.seed = number(text()?)?,
            "--guardian" => wanted.guarded = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{option} is not an option; see --help")),
        }
    }
    Ok(Some(wanted))
}

impl Wanted {
    /// One killing for each mode; together they have all the kills.
    fn killings(&self, cast: &Cast) -> Vec<Killing> {
        let modes: Vec<_> = KeptMode::ALL
            .into_iter()
            .filter(|mode| self.page_sizes.contains(&mode.page_size))
            .filter(|mode| self.tracks.contains(&mode.tracks))
            .collect();
        let each = self.kills.div_ceil(u32::try_from(modes.len()).expect("few modes"));
        let killing = |mode| {
            let usual = Killing::new(cast.clone(), mode, each, self.seed);
            let pages = self.pages.unwrap_or(usual.pages);
            Killing { threads: self.threads, pages, guarded: self.guarded, ..usual }
        };
        modes.into_iter().map(killing).collect()
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // Guests and keepers are processes of this program.
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
            eprintln!("uffd-kill-test: {mistake}");
            return ExitCode::from(2);
        }
    };
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => {
            eprintln!("uffd-kill-test: cannot find itself, to run guests and keepers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (start, mut all_right, mut kills) = (Instant::now(), true, 0);
    for killing in wanted.killings(&Cast::new(own)) {
        println!("{}, seed {}", killing.mode, killing.seed);
        let told = |sum: &Killed| {
            let (seed, passed) = (killing.seed + u64::from(sum.guests) - 1, start.elapsed());
            let kills = (sum.kills, killing.kills);
            println!(
                "{:>6.0} s  guest of seed {seed}: {} of {} kills",
                passed.as_secs_f64(),
                kills.0,
                kills.1
            );
        };
        match killing.run(told) {
            Ok(killed) => {
                print!("{killed}");
                all_right &= killed.is_right();
                kills += killed.kills;
            }
            Err(error) => {
                println!("FAILED        {error}");
                all_right = false;
            }
        }
        println!();
    }
    println!(
        "{kills} kills, {}",
        if all_right { "and everything was right" } else { "and NOT everything was right" }
    );
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
        let wanted = parsed("--kills 7 --page-size 4096 --tracking async --pages 9 --seed 4");
        let wanted = wanted.unwrap().unwrap();
        let killings = wanted.killings(&Cast::new("kill-test"));
        let [killing] = &killings[..] else { panic!("{killings:?}") };
        assert_eq!(killing.mode, KeptMode { page_size: SMALL, tracks: Tracks::Kernel });
        assert_eq!((killing.kills, killing.pages, killing.seed), (7, 9, 4));
        let all = parsed("--kills 13").unwrap().unwrap().killings(&Cast::new("kill-test"));
        assert_eq!(all.iter().map(|killing| killing.kills).collect::<Vec<_>>(), [3; 6]);
        assert!(parsed("--help").unwrap().is_none());
        for (line, word) in [
            ("--kills", "--kills needs a value"),
            ("--kills x", "expected a number"),
            ("--kills 0", "1 to"),
            ("--page-size 8192", "4096, 2097152 or both"),
            ("--tracking maybe", "off, on, async or all"),
            ("--threads 0", "1 to 1024"),
            ("--pages 2", "at least 3"),
            ("--what", "--what is not an option"),
        ] {
            let Err(mistake) = parsed(line) else { panic!("{line}") };
            assert!(mistake.contains(word), "{mistake}");
        }
    }

    #[test]
    fn the_help_names_every_option() {
        for option in
            ["--kills", "--threads", "--page-size", "--tracking", "--pages", "--seed", "--help"]
        {
            assert!(HELP.contains(option), "{option}");
        }
    }
}
