//! Somebody who uses the host's pool of huge pages: takes some and gives them back, again and
//! again, in bursts with a pause between. Ends when its input does.

use std::io::{self, Read, Write};
use std::time::Duration;
use std::{process, thread};

use uffd_guest::pool::take_and_give_back;

type Failure = Box<dyn std::error::Error>;

/// Turns of a burst.
const BURST: u32 = 200;

pub(super) fn play(args: &[String]) -> Result<(), Failure> {
    let [pages, pause] = args else { return Err("a drain needs pages and a pause".into()) };
    let (pages, pause) = (pages.parse()?, Duration::from_micros(pause.parse()?));
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    writeln!(io::stdout(), "draining")?;
    loop {
        for _ in 0..BURST {
            take_and_give_back(pages)?;
        }
        thread::sleep(pause);
    }
}
