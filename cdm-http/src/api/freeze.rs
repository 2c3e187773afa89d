//! Freezes in API requests and responses.

use cdm_core::domain::{self, Timestamp};
use cdm_core::manager::NewFreeze;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ActorName, Fields, FreezeId, InvalidFields, SiteId, Time};

/// A freeze: sites that are not moved.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// The opaque id of the freeze.
    pub id: FreezeId,
    /// The ids of the frozen sites; null if all sites are frozen.
    #[schema(required = true)]
    pub sites: Option<Vec<SiteId>>,
    /// Why the sites are frozen.
    pub reason: String,
    /// The actor who created the freeze.
    pub owner: ActorName,
    /// When the freeze was created.
    pub created_at: Time,
    /// When the freeze expires; null if it lasts until it is removed.
    #[schema(required = true)]
    pub expires_at: Option<Time>,
}

impl From<&domain::Freeze> for Freeze {
    fn from(freeze: &domain::Freeze) -> Self {
        let sites = freeze.sites.as_ref();
        Self {
            id: FreezeId::from_number(freeze.number),
            sites: sites.map(|sites| sites.iter().map(SiteId::from).collect()),
            reason: freeze.reason.clone(),
            owner: ActorName::from(&freeze.by),
            created_at: freeze.at.into(),
            expires_at: freeze.until.map(Time),
        }
    }
}

/// The id of a site in a request, with its pattern. Only the schema uses the type.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^[a-z](-?[a-z0-9])*$", max_length = 32)]
pub struct RequestedSite(pub String);

/// A request to create a freeze.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateFreeze {
    /// The ids of the sites to freeze, at least one. Default: all sites.
    #[schema(value_type = Option<Vec<RequestedSite>>, min_items = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<SiteId>>,
    /// Why the sites are frozen; the reason is part of the error of a rejected request.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
    /// When the freeze expires, in RFC 3339, in the future. Default: never.
    #[schema(format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl CreateFreeze {
    /// Validates the request.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(&self, now: Timestamp) -> Result<NewFreeze, InvalidFields> {
        let mut fields = Fields::default();
        let reason = fields.parse("reason", domain::Freeze::reason(&self.reason));
        let until = self.expires_at.as_deref().map(|text| Time::parse(text).map(|time| time.0));
        if until.is_some_and(|end| end.is_none_or(|end| end <= now)) {
            fields.reject("expiresAt", "the time must be in the future, in RFC 3339");
        }
        let sites = self.sites.as_ref().map(|ids| {
            if ids.is_empty() || ids.len() > domain::Freeze::MOST_SITES {
                fields
                    .reject("sites", "the list must have 1 to 2000 sites; leave it out to freeze all sites");
            }
            let ids = ids.iter().map(|id| fields.parse("sites", domain::SiteId::parse(id.as_str())));
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
