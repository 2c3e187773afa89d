//! Webhooks: where the feed is sent to, which addresses that may be, and how what is sent is signed.

mod address;
mod receiver;
mod signature;

pub use address::is_public;
pub use receiver::{Allowed, Receiver};
pub use signature::{SigningKey, message_id};
