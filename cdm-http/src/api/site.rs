//! Sites in API requests and responses.

use cdm_core::domain::{
    Color, DatabaseName, Hostnames, Operation, SecretKind, SecretName, SiteId, SiteName, Theme,
};
use cdm_core::manager::NewSite;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::enums::{OperationStatus, ServiceName, SiteState};
use super::time;
use crate::error::ApiError;
use crate::extract::Fields;

/// A site of a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// The id of the site, which the user chose.
    pub id: String,
    /// The unique id from which the names of the site's resources are derived; never reused.
    pub uid: String,
    /// The title of the site.
    pub name: String,
    /// The theme of the site.
    pub theme: String,
    /// The hostnames of the site.
    pub hostnames: Vec<String>,
    /// The hostname that the other hostnames redirect to.
    pub canonical_hostname: String,
    /// The service that the site is assigned to.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// The last observed target of the site's route; null without a route.
    #[schema(required = true, value_type = Option<ServiceName>)]
    pub routed_service: Option<String>,
    /// The lifecycle state of the site.
    #[schema(value_type = SiteState)]
    pub state: String,
    /// The unfinished operation on the site; null without one.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// The status of that operation; `parked` needs a user.
    #[schema(required = true, value_type = Option<OperationStatus>)]
    pub operation_status: Option<String>,
    /// The database of the site.
    pub database: Database,
    /// The names of the site's secrets.
    pub secrets: Secrets,
    /// The prefix of the site's objects.
    pub object_prefix: String,
    /// When the site was created.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When the site last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// A number that increases with each change.
    pub version: u64,
}

/// The database of a site.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Database {
    /// The name of the database and of its user.
    pub name: String,
}

/// The names of a site's secrets, without the prefix of the platform.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Secrets {
    /// The name of the secret with the database credentials.
    pub database: String,
    /// The name of the secret with the administrator's credentials.
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

/// A request to create a site.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSite {
    /// The id of the site; it must not contain `--`.
    #[schema(pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", min_length = 1, max_length = 32)]
    pub id: String,
    /// The theme of the site: the name of the theme's directory.
    #[schema(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$", min_length = 1, max_length = 100)]
    pub theme: String,
    /// The hostnames of the site, without duplicates and without hostnames of other sites.
    #[schema(min_items = 1, max_items = 16)]
    pub hostnames: Vec<String>,
    /// The service that the site is assigned to. Default: the active canary.
    #[schema(value_type = Option<ServiceName>)]
    pub service: Option<String>,
    /// The title of the site, in printable characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// The hostname that the others redirect to; one of `hostnames`.
    #[schema(min_length = 1, max_length = 1024)]
    pub canonical_hostname: String,
}

impl CreateSite {
    pub(crate) fn parse(&self) -> Result<NewSite, ApiError> {
        let mut fields = Fields::default();
        let id = fields.parse("id", SiteId::parse(&self.id));
        let theme = fields.parse("theme", Theme::parse(&self.theme));
        let name = fields.parse("name", SiteName::parse(&self.name));
        let hostnames = Hostnames::parse(&self.hostnames, &self.canonical_hostname).map_err(|broken| {
            let field = match broken.place() {
                Some(index) => format!("hostnames[{index}]"),
                None if broken.what().contains("canonical") => "canonicalHostname".to_owned(),
                None => "hostnames".to_owned(),
            };
            fields.reject(&field, &format!("`{}`: {}", broken.value(), broken.rule()));
        });
        let service = self.service.as_deref().map(|text| fields.parse("service", Color::parse(text)));
        let service = service.map_or(Some(None), |service| service.map(Some));
        let parsed = (|| {
            Some(NewSite {
                id: id?,
                name: name?,
                theme: theme?,
                hostnames: hostnames.ok()?,
                service: service?,
            })
        })();
        fields.finish(parsed)
    }
}
