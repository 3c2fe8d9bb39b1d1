//! What can be asked of a guest, and what it answers: one JSON object a line.
//!
//! A request names its `op`; those that touch memory are executed by the worker `thread`, in
//! order, so that a thread which waits for a page delays nobody else. The others are executed at
//! once, whatever threads are waiting.

mod answers;
mod bench;
mod op;
mod refusal;
mod soak;

use serde::{Deserialize, Serialize};

pub use answers::{
    PageState, ProgramReport, RefusedStep, Rss, Touched, Verified, Whereabouts, Wrong,
};
pub use bench::{Bench, BenchReport, Cost, Latency, Order};
pub use op::{Death, Expect, Op};
pub use refusal::Refusal;
pub use soak::{Soak, SoakMistake, SoakReport};

use crate::memory::Region;

/// A line to the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the reply.
    pub id: u64,
    /// Which worker does it.
    #[serde(default)]
    pub thread: u32,
    /// What to do.
    #[serde(flatten)]
    pub op: Op,
}

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line: the handoff was sent.
    Ready(Ready),
    /// A request was carried out, or refused.
    Reply(Reply),
    /// The guest gives up.
    Failed(Refusal),
}

/// What the guest is, once it has handed off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Its process.
    pub pid: i32,
    /// Its page size in bytes.
    pub page_size: u64,
    /// Its regions, in the order of the snapshot.
    pub regions: Vec<Region>,
    /// Whether only faults of user mode are handed off.
    pub user_mode_only: bool,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request.
    pub id: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer to its op.
    Ok(serde_json::Value),
    /// Why not.
    Error(Refusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(json: &str) -> Request {
        let request: Request = serde_json::from_str(json).unwrap();
        let again = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), request);
        request
    }

    #[test]
    fn requests_are_short_to_write() {
        let request = round_trip(r#"{"id":1,"op":"read","page":5}"#);
        assert_eq!(request, Request { id: 1, thread: 0, op: Op::Read { page: 5, count: 1 } });
        let request = round_trip(r#"{"id":2,"thread":3,"op":"random","seed":9}"#);
        assert_eq!(request.op, Op::Random(Soak { seed: 9, ..Soak::default() }));
        round_trip(r#"{"id":3,"op":"verify","page":0,"count":2,"expect":["source",{"stamp":4}]}"#);
        round_trip(r#"{"id":4,"op":"die","how":"kill","after_touches":10}"#);
        round_trip(r#"{"id":5,"op":"bench","order":{"strided":4},"threads":2}"#);
        round_trip(
            r#"{"id":6,"op":"program","steps":[{"op":"barrier","name":"b","parties":2},
            {"op":"write","page":1,"stamp":2,"at":8}]}"#,
        );
    }

    #[test]
    fn replies_say_ok_or_error() {
        let reply = |outcome| serde_json::to_string(&Reply { id: 7, outcome }).unwrap();
        assert_eq!(reply(Outcome::Ok(1.into())), r#"{"id":7,"ok":1}"#);
        let refusal = Refusal { message: "no".into(), errno: Some(22) };
        let line = reply(Outcome::Error(refusal.clone()));
        assert_eq!(line, r#"{"id":7,"error":{"message":"no","errno":22}}"#);
        let read: Reply = serde_json::from_str(&line).unwrap();
        assert_eq!(read.outcome, Outcome::Error(refusal));
    }
}
