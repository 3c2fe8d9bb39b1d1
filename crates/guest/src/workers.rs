//! The threads of a guest, each with its requests in order.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use serde_json::Value;

use crate::guest::Guest;
use crate::ops;
use crate::protocol::{Op, Refusal};
use crate::voice::reply;

/// The threads, started when first asked for.
#[derive(Debug)]
pub(crate) struct Workers {
    guest: Arc<Guest>,
    threads: HashMap<u32, Sender<(u64, Op)>>,
}

impl Workers {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self { guest, threads: HashMap::new() }
    }

    /// Has `thread` execute a request, after those it has already.
    pub(crate) fn submit(&mut self, thread: u32, id: u64, op: Op) -> io::Result<()> {
        if !self.threads.contains_key(&thread) {
            let (sender, requests) = mpsc::channel::<(u64, Op)>();
            let guest = Arc::clone(&self.guest);
            thread::Builder::new().name(format!("guest {thread}")).spawn(move || {
                for (id, op) in requests {
                    reply(id, execute(&guest, &op));
                }
            })?;
            self.threads.insert(thread, sender);
        }
        if let Some(sender) = self.threads.get(&thread) {
            sender.send((id, op)).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Executes an op; a panic is a refusal too, for every request has a reply.
pub(crate) fn execute(guest: &Guest, op: &Op) -> Result<Value, Refusal> {
    catch_unwind(AssertUnwindSafe(|| ops::execute(guest, op)))
        .unwrap_or_else(|_| Err(Refusal::new("the guest panicked; its standard error says why")))
}
