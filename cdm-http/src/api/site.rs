//! A site on the wire.

use cdm_core::domain::{
    Color, DatabaseName, Hostnames, Operation, SecretKind, SecretName, SiteId, SiteName, Theme,
};
use cdm_core::manager::NewSite;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;
use super::words::{OperationStatus, ServiceName, SiteState};
use crate::error::Refusal;
use crate::input::Fields;

/// A site.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// What people call it.
    pub id: String,
    /// What everything of it is named by; never reused.
    pub uid: String,
    /// Its title.
    pub name: String,
    /// Its theme.
    pub theme: String,
    /// Where it is served.
    pub hostnames: Vec<String>,
    /// The hostname that the others redirect to.
    pub canonical_hostname: String,
    /// The service that the record assigns it to.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// Where its route was last seen to point; null without one.
    #[schema(required = true, value_type = Option<ServiceName>)]
    pub routed_service: Option<String>,
    /// Where it is in its life.
    #[schema(value_type = SiteState)]
    pub state: String,
    /// The operation at work on it.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// How that stands; `parked` waits for a person.
    #[schema(required = true, value_type = Option<OperationStatus>)]
    pub operation_status: Option<String>,
    /// Its database.
    pub database: Database,
    /// The names of its secrets.
    pub secrets: Secrets,
    /// The prefix of its objects.
    pub object_prefix: String,
    /// When it was recorded.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// Raised by every change.
    pub version: u64,
}

/// A site's database.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Database {
    /// Its name, and that of its user.
    pub name: String,
}

/// The names of a site's secrets, below the platform's prefix.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Secrets {
    /// Of the credentials of its database.
    pub database: String,
    /// Of the credentials of its administrator.
    pub cms: String,
}

impl From<&cdm_core::domain::Site> for Site {
    fn from(site: &cdm_core::domain::Site) -> Self {
        let secret = |kind| SecretName { uid: site.uid, kind }.to_string();
        let subject = || cdm_core::domain::Subject::Site(site.id.clone());
        let operation =
            site.operation.as_ref().map(|current| Operation::live(subject(), current.clone()).id.to_string());
        Self {
            id: site.id.to_string(),
            uid: site.uid.to_string(),
            name: site.name.to_string(),
            theme: site.theme.to_string(),
            hostnames: site.hostnames.all().iter().map(ToString::to_string).collect(),
            canonical_hostname: site.hostnames.canonical().to_string(),
            service: site.service.to_string(),
            routed_service: site.routed_service().map(|service| service.to_string()),
            state: site.state().to_string(),
            operation,
            operation_status: site.operation.as_ref().map(|current| current.status.to_string()),
            database: Database { name: DatabaseName::of(site.uid).to_string() },
            secrets: Secrets { database: secret(SecretKind::Database), cms: secret(SecretKind::Cms) },
            object_prefix: site.prefix().to_string(),
            created_at: time(site.created_at),
            updated_at: time(site.updated_at),
            version: site.version,
        }
    }
}

/// A site to create.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSite {
    /// What people will call it; without `--`.
    #[schema(pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", min_length = 1, max_length = 32)]
    pub id: String,
    /// Its theme, named as its directory is.
    #[schema(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$", min_length = 1, max_length = 100)]
    pub theme: String,
    /// Where it is to be served; no hostname twice, and none of another site.
    #[schema(min_items = 1, max_items = 16)]
    pub hostnames: Vec<String>,
    /// The service; the active canary where none is named.
    #[schema(value_type = Option<ServiceName>)]
    pub service: Option<String>,
    /// Its title: printable characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// One of the hostnames.
    #[schema(min_length = 1, max_length = 1024)]
    pub canonical_hostname: String,
}

impl CreateSite {
    pub(crate) fn parse(&self) -> Result<NewSite, Refusal> {
        let mut fields = Fields::default();
        let id = fields.take("id", SiteId::parse(&self.id));
        let theme = fields.take("theme", Theme::parse(&self.theme));
        let name = fields.take("name", SiteName::parse(&self.name));
        let hostnames = Hostnames::parse(&self.hostnames, &self.canonical_hostname).map_err(|broken| {
            let field = match broken.place() {
                Some(index) => format!("hostnames[{index}]"),
                None if broken.what().contains("canonical") => "canonicalHostname".to_owned(),
                None => "hostnames".to_owned(),
            };
            fields.refuse(&field, &format!("`{}`: {}", broken.value(), broken.rule()));
        });
        let service = self.service.as_deref().map(|text| fields.take("service", Color::parse(text)));
        let service = service.map_or(Some(None), |service| service.map(Some));
        let taken = (|| {
            Some(NewSite {
                id: id?,
                name: name?,
                theme: theme?,
                hostnames: hostnames.ok()?,
                service: service?,
            })
        })();
        fields.end(taken)
    }
}
