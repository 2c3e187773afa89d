//! Webhooks: which events of the feed a webhook subscribes to, the URL it sends them to, the addresses that are
//! allowed, and how messages are signed.

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
