//! Webhooks: who is told what of the feed, where it is sent to, which addresses that may be, and how what is sent is
//! signed.

mod address;
mod receiver;
mod record;
mod signature;
mod topic;

pub use address::{is_private, is_public};
pub use receiver::{Allowed, Receiver};
pub use record::{DeliveryState, Webhook, Webhooks};
pub use signature::{SigningKey, message_id};
pub use topic::Topic;
