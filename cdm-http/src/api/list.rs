//! Pages of lists, and the response to a removal.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Listing<T: ToSchema> {
    /// The items of the page.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last page.
    #[schema(required = true)]
    pub next: Option<String>,
}

/// The response to a removal.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// The id of the removed object.
    pub id: String,
}
