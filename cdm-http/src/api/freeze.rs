//! Freezes in API requests and responses.

use cdm_core::domain::{self, SiteId, Timestamp};
use cdm_core::manager::NewFreeze;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{moment, time};
use crate::error::ApiError;
use crate::extract::Fields;

/// A freeze: sites that are not moved.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// The opaque id of the freeze.
    pub id: String,
    /// The ids of the frozen sites; null if all sites are frozen.
    #[schema(required = true)]
    pub sites: Option<Vec<String>>,
    /// Why the sites are frozen.
    pub reason: String,
    /// The actor who created the freeze.
    pub owner: String,
    /// When the freeze was created.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When the freeze expires; null if it lasts until it is removed.
    #[schema(required = true, format = DateTime)]
    pub expires_at: Option<String>,
}

/// Formats the id of a freeze.
pub(crate) fn id(number: u64) -> String {
    format!("freeze-{number}")
}

/// Returns the number in the id of a freeze; `None` if the id is not valid.
pub(crate) fn number(id: &str) -> Option<u64> {
    let number = id.strip_prefix("freeze-")?.parse().ok()?;
    (self::id(number) == id).then_some(number)
}

impl From<&domain::Freeze> for Freeze {
    fn from(freeze: &domain::Freeze) -> Self {
        let sites = freeze.sites.as_ref();
        Self {
            id: id(freeze.number),
            sites: sites.map(|sites| sites.iter().map(ToString::to_string).collect()),
            reason: freeze.reason.clone(),
            owner: freeze.by.to_string(),
            created_at: time(freeze.at),
            expires_at: freeze.until.map(time),
        }
    }
}

/// The id of a site.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^[a-z](-?[a-z0-9])*$", max_length = 32)]
pub struct SiteText(pub String);

/// A request to create a freeze.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateFreeze {
    /// The ids of the sites to freeze, at least one. Default: all sites.
    #[schema(value_type = Option<Vec<SiteText>>, min_items = 1)]
    pub sites: Option<Vec<String>>,
    /// Why the sites are frozen; the reason is part of the error of a rejected request.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
    /// When the freeze expires, in RFC 3339, in the future. Default: never.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

impl CreateFreeze {
    pub(crate) fn parse(&self, now: Timestamp) -> Result<NewFreeze, ApiError> {
        let mut fields = Fields::default();
        let reason = fields.parse("reason", domain::Freeze::reason(&self.reason));
        let until = self.expires_at.as_deref().map(moment);
        if until.is_some_and(|end| end.is_none_or(|end| end <= now)) {
            fields.reject("expiresAt", "the time must be in the future, in RFC 3339");
        }
        let sites = self.sites.as_ref().map(|ids| {
            if ids.is_empty() || ids.len() > domain::Freeze::MOST_SITES {
                fields
                    .reject("sites", "the list must have 1 to 2000 sites; leave it out to freeze all sites");
            }
            let ids = ids.iter().map(|id| fields.parse("sites", SiteId::parse(id)));
            ids.collect::<Option<Vec<_>>>()
        });
        let sites = match sites {
            None => Some(None),
            Some(sites) => sites.map(Some),
        };
        let parsed = reason.zip(sites).map(|(reason, mut sites)| {
            if let Some(sites) = &mut sites {
                sites.sort();
                sites.dedup();
            }
            NewFreeze { sites, reason, until: until.flatten() }
        });
        fields.finish(parsed)
    }
}
