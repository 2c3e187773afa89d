//! Part of a list, and what was taken out of one.

use serde::Serialize;
use utoipa::ToSchema;

/// Part of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Listing<T: ToSchema> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; null after the last.
    #[schema(required = true)]
    pub next: Option<String>,
}

/// A thing that was removed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Removed {
    /// Which.
    pub id: String,
}
