//! Sites in API requests and responses.

use cdm_core::domain::{
    self, Color, DatabaseName, Hostnames, Operation, SecretKind, SecretName, SiteName, State, Theme,
};
use cdm_core::manager::NewSite;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::operation::OperationStatus;
use super::{Fields, InvalidFields, OperationId, ServiceName, SiteId, SiteUid, Time, wire_enum};

wire_enum! {
    /// The lifecycle state of a site.
    pub enum SiteState from State {
        /// The site is being created.
        Creating = "creating" (State::Creating),
        /// The site is created, and can be provisioned.
        Created = "created" (State::Created),
        /// The site is being provisioned.
        Provisioning = "provisioning" (State::Provisioning),
        /// The site serves requests.
        Active = "active" (State::Active),
        /// The site is being assigned to the active canary.
        Upgrading = "upgrading" (State::Upgrading),
        /// The site is being moved to the active canary.
        Promoting = "promoting" (State::Promoting),
        /// The site is being removed.
        Terminating = "terminating" (State::Terminating),
    }
}

/// A site of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// The id of the site, which the user chose.
    pub id: SiteId,
    /// The unique id from which the names of the site's resources are derived; never reused.
    pub uid: SiteUid,
    /// The title of the site.
    pub name: String,
    /// The theme of the site.
    pub theme: String,
    /// The hostnames of the site.
    pub hostnames: Vec<String>,
    /// The hostname that the other hostnames redirect to.
    pub canonical_hostname: String,
    /// The service that the site is assigned to.
    pub service: ServiceName,
    /// The last observed target of the site's route; null without a route.
    #[schema(required = true)]
    pub routed_service: Option<ServiceName>,
    /// The lifecycle state of the site.
    pub state: SiteState,
    /// The unfinished operation on the site; null without one.
    #[schema(required = true)]
    pub operation: Option<OperationId>,
    /// The status of that operation; `parked` needs a user.
    #[schema(required = true)]
    pub operation_status: Option<OperationStatus>,
    /// The database of the site.
    pub database: Database,
    /// The names of the site's secrets.
    pub secrets: Secrets,
    /// The prefix of the site's objects.
    pub object_prefix: String,
    /// When the site was created.
    pub created_at: Time,
    /// When the site last changed.
    pub updated_at: Time,
    /// A number that increases with each change.
    pub version: u64,
}

impl Site {
    /// Returns whether the unfinished operation on the site needs a user.
    pub fn is_parked(&self) -> bool {
        self.operation_status == Some(OperationStatus::Parked)
    }
}

/// The database of a site.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Database {
    /// The name of the database and of its user.
    pub name: String,
}

/// The names of a site's secrets, without the prefix of the platform.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Secrets {
    /// The name of the secret with the database credentials.
    pub database: String,
    /// The name of the secret with the administrator's credentials.
    pub cms: String,
}

impl From<&domain::Site> for Site {
    fn from(site: &domain::Site) -> Self {
        let secret = |kind| SecretName { uid: site.uid, kind }.to_string();
        let subject = || domain::Subject::Site(site.id.clone());
        let live = |current: &domain::operation::OperationState| {
            OperationId::from(&Operation::live(subject(), current.clone()).id)
        };
        Self {
            id: SiteId::from(&site.id),
            uid: SiteUid::from(&site.uid),
            name: site.name.to_string(),
            theme: site.theme.to_string(),
            hostnames: site.hostnames.all().iter().map(ToString::to_string).collect(),
            canonical_hostname: site.hostnames.canonical().to_string(),
            service: site.service.into(),
            routed_service: site.routed_service().map(ServiceName::from),
            state: site.state().into(),
            operation: site.operation.as_ref().map(live),
            operation_status: site.operation.as_ref().map(|current| current.status.into()),
            database: Database { name: DatabaseName::of(site.uid).to_string() },
            secrets: Secrets { database: secret(SecretKind::Database), cms: secret(SecretKind::Cms) },
            object_prefix: site.prefix().to_string(),
            created_at: site.created_at.into(),
            updated_at: site.updated_at.into(),
            version: site.version,
        }
    }
}

/// A request to create a site.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSite {
    /// The id of the site; it must not contain `--`.
    #[schema(value_type = String, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", min_length = 1, max_length = 32)]
    pub id: SiteId,
    /// The theme of the site: the name of the theme's directory.
    #[schema(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$", min_length = 1, max_length = 100)]
    pub theme: String,
    /// The hostnames of the site, without duplicates and without hostnames of other sites.
    #[schema(min_items = 1, max_items = 16)]
    pub hostnames: Vec<String>,
    /// The service that the site is assigned to. Default: the active canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The title of the site, in printable characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// The hostname that the others redirect to; one of `hostnames`.
    #[schema(min_length = 1, max_length = 1024)]
    pub canonical_hostname: String,
}

impl CreateSite {
    /// Validates the request.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(&self) -> Result<NewSite, InvalidFields> {
        let mut fields = Fields::default();
        let id = fields.parse("id", domain::SiteId::parse(self.id.as_str()));
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
        let service = self.service.as_ref().map(|name| fields.parse("service", Color::parse(name.as_str())));
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
