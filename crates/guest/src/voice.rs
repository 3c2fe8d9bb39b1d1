//! What the guest says on its standard output: one JSON object a line.

use std::io::{self, Write};

use serde_json::Value;

use crate::protocol::{Line, Outcome, Refusal, Reply};

/// Says what came of a request.
pub(crate) fn reply(id: u64, outcome: Result<Value, Refusal>) {
    let outcome = outcome.map_or_else(Outcome::Error, Outcome::Ok);
    say(&Line::Reply(Reply { id, outcome }));
}

/// Writes one line to standard output.
pub(crate) fn say(line: &Line) {
    let mut text = serde_json::to_string(line).expect("lines are plain data");
    text.push('\n');
    // Nobody to tell if the driver is gone; standard input ends then, and the guest with it.
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
