//! The core as JavaScript sees it. This crate translates and decides nothing; one file a
//! JavaScript type.
//!
//! Whatever the core has to say goes through one [`outbox`] a server, from which JavaScript
//! collects it when the [`bell`] rings. So a busy event loop holds up nobody: statistics replace
//! each other, the trace waits in the fault loop, and nothing grows without bound.

// What is exported is public to JavaScript, whatever Rust thinks of it.
#![allow(unreachable_pub)]
#![cfg_attr(test, allow(dead_code, reason = "napi exports nothing to a test"))]

mod bell;
mod bound_socket;
mod end_report;
mod error;
mod event;
mod export;
mod guardian;
mod guest;
mod guest_program;
mod host;
mod latency;
mod listen_options;
mod metrics;
mod notice;
mod outbox;
mod prefault;
mod prefault_report;
mod process_facts;
mod reception;
mod region;
mod release_progress;
mod reporter;
mod server;
mod service_manager;
mod sessions;
mod snapshot;
mod stats;
mod trace;
mod trace_words;
