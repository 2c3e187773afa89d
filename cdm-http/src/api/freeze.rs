//! A freeze on the wire.

use cdm_core::domain::{self, SiteId, Timestamp};
use cdm_core::manager::NewFreeze;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{moment, time};
use crate::error::Refusal;
use crate::input::Fields;

/// A stop of moves.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// Its opaque name.
    pub id: String,
    /// These sites; null for all.
    #[schema(required = true)]
    pub sites: Option<Vec<String>>,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub owner: String,
    /// Since when.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it ends by itself; null for never.
    #[schema(required = true, format = DateTime)]
    pub expires_at: Option<String>,
}

/// A freeze's id.
pub(crate) fn id(number: u64) -> String {
    format!("freeze-{number}")
}

/// The number of a freeze's id.
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

/// A site's id.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^[a-z](-?[a-z0-9])*$", max_length = 32)]
pub struct SiteText(pub String);

/// A freeze to begin.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateFreeze {
    /// These sites, one or more; all where it is left out.
    #[schema(value_type = Option<Vec<SiteText>>, min_items = 1)]
    pub sites: Option<Vec<String>>,
    /// Why: what whoever is stopped by it is told.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
    /// When it ends by itself: RFC 3339, in the future; never where it is left out.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

impl CreateFreeze {
    pub(crate) fn parse(&self, now: Timestamp) -> Result<NewFreeze, Refusal> {
        let mut fields = Fields::default();
        let reason = fields.take("reason", domain::Freeze::reason(&self.reason));
        let until = self.expires_at.as_deref().map(moment);
        if until.is_some_and(|end| end.is_none_or(|end| end <= now)) {
            fields.refuse("expiresAt", "the end of a freeze is a moment in the future, in RFC 3339");
        }
        let sites = self.sites.as_ref().map(|ids| {
            if ids.is_empty() || ids.len() > domain::Freeze::MOST_SITES {
                fields.refuse("sites", "from 1 to 2000 sites, or none named for all of them");
            }
            let ids = ids.iter().map(|id| fields.take("sites", SiteId::parse(id)));
            ids.collect::<Option<Vec<_>>>()
        });
        let sites = match sites {
            None => Some(None),
            Some(sites) => sites.map(Some),
        };
        let taken = reason.zip(sites).map(|(reason, mut sites)| {
            if let Some(sites) = &mut sites {
                sites.sort();
                sites.dedup();
            }
            NewFreeze { sites, reason, until: until.flatten() }
        });
        fields.end(taken)
    }
}
