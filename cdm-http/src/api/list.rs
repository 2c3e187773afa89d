//! Part of a list.

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
