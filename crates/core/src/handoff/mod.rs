//! The handoff: a VMM connects to a Unix socket and sends one JSON array, the regions of its
//! guest, together with one descriptor, the userfaultfd. Either all of it is right, or the guest
//! is refused with an error that says what is not.

mod connection;
mod descriptors;
mod error;
mod framing;
mod incoming;
mod leaving;
mod listener;
pub mod message;
mod peek;
mod socket_file;
mod taking;
mod visit;
mod wait;
mod wire;

pub use connection::{Connection, Handoff, Limits, Peer};
pub use error::{AcceptError, BindError, HandoffError, Missing};
pub(crate) use leaving::Ticket;
pub use listener::Listener;
pub use message::MessageError;
pub use socket_file::{SocketAccess, SocketFile, listen_on};

#[cfg(test)]
mod tests;
