//! The guardian: a process beside the server that serves its guests whenever the server cannot.
//!
//! Both meet on a socket in the state directory, and each proves to the other what it is by the
//! lock it holds there, as the kernel tells it: the server that of the directory's guests, the
//! guardian its own. Neither believes a word before. Which of them serves a guest is decided by
//! nothing that is said here, but by the lock on its ledger.
//!
//! | module | knows |
//! |---|---|
//! | `message` | what is said, and its version |
//! | `channel` | one message a packet, a userfaultfd with it, no waiting |
//! | `proof` | who is at the other end |
//! | `post` | where the guardian listens |
//! | `launch` | how one is started |
//! | `link` | the server's connection: kept up by a thread, through the death of guardians |
//! | `news` | what the server is told of its guardian |
//! | `client` | the server's side: entrusting guests, and having them back |

mod channel;
mod client;
mod error;
mod launch;
mod link;
mod message;
mod news;
mod post;
mod proof;

pub use channel::{Channel, ChannelError};
pub use client::{Client, Ward};
pub use error::GuardianError;
pub use launch::Launch;
pub use message::{Answer, PROTOCOL, Request};
pub use news::{News, Observer};
pub use post::{Post, PostError, Visitor};
pub use proof::Unproven;
