//! The page that creates a site, and its form.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::manager::Accepted;

use super::PATH;
use crate::api::ServiceName;
use crate::api::SiteId;
use crate::api::site::CreateSite;
use crate::app::{AppState, SharedState};
use crate::console::confirm::{Confirmation, Field, FieldKind, confirmation_error, confirmation_page};
use crate::console::form::Form;
use crate::console::page::Section;
use crate::console::session::PageRequest;
use crate::error::ApiError;

/// Returns the form of a new site, with the input of the previous attempt.
async fn form_of(server: &AppState, filled: &CreateSite) -> Result<Confirmation, ApiError> {
    let canary = server.app.manager.services().await?.canary;
    let mut services = vec![(String::new(), format!("{canary}, the active canary"))];
    services.extend(ServiceName::ALL.iter().map(|name| (name.to_string(), name.to_string())));
    let field = |name, label: &str, hint: &str, kind, value: &str| Field {
        name,
        label: label.to_owned(),
        hint: hint.to_owned(),
        kind,
        value: value.to_owned(),
        problem: None,
        required: name != "service" && name != "canonicalHostname",
    };
    Ok(Confirmation {
        title: "Create a site".to_owned(),
        lines: vec![
            "Claims the id and the hostnames, and creates the site's credentials. Provision the site to make it live."
                .to_owned(),
        ],
        fields: vec![
            field(
                "id",
                "Id",
                "Lower-case letters, digits and hyphens, at most 32 characters. The id cannot be changed.",
                FieldKind::Code,
                filled.id.as_str(),
            ),
            field("name", "Title", "The title that visitors of the site see.", FieldKind::Line, &filled.name),
            field("theme", "Theme", "For example twentytwentyfive.", FieldKind::Code, &filled.theme),
            field(
                "hostnames",
                "Hostnames",
                "One per line, at most 16.",
                FieldKind::Lines,
                &filled.hostnames.join("\n"),
            ),
            field(
                "canonicalHostname",
                "Canonical hostname",
                "One of the hostnames. Default: the first.",
                FieldKind::Code,
                &filled.canonical_hostname,
            ),
            field(
                "service",
                "Service",
                "",
                FieldKind::Choice(services),
                filled.service.as_ref().map_or("", ServiceName::as_str),
            ),
        ],
        button: "Create the site".to_owned(),
        action: format!("{PATH}/create"),
        back: PATH.to_owned(),
        ..Confirmation::default()
    })
}

/// Shows the form of a new site.
pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
) -> Result<Response, ApiError> {
    let empty = CreateSite {
        id: SiteId::from(""),
        theme: String::new(),
        hostnames: Vec::new(),
        service: None,
        name: String::new(),
        canonical_hostname: String::new(),
    };
    let confirmation = form_of(&server, &empty).await?;
    confirmation_page(&server, &request.current_user, Section::Sites, StatusCode::OK, &confirmation)
}

/// Creates a site, and redirects to its page.
pub(crate) async fn create(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    let hosts = form.text("hostnames").split([',', ' ', '\n', '\r']).filter(|host| !host.is_empty());
    let hostnames: Vec<String> = hosts.map(str::to_owned).collect();
    let canonical = form.optional("canonicalHostname").or(hostnames.first().map(String::as_str));
    let filled = CreateSite {
        id: SiteId::from(form.text("id")),
        theme: form.text("theme").to_owned(),
        canonical_hostname: canonical.unwrap_or_default().to_owned(),
        hostnames,
        service: form.optional("service").map(ServiceName::from),
        name: form.text("name").to_owned(),
    };
    let result = match filled.parse() {
        Ok(new) => server.app.manager.create_site(&request, &new).await.map_err(ApiError::from),
        Err(invalid) => Err(invalid.into()),
    };
    match result {
        Ok(accepted) => {
            if let Accepted::Operation(operation) = &accepted {
                // The operation usually finishes within the wait, so the page shows the created site.
                server.wait_for_operation(operation, crate::routes::response::DEFAULT_WAIT).await?;
            }
            Ok(Redirect::to(&format!("{PATH}/{}", filled.id)).into_response())
        }
        Err(error) => {
            let confirmation = form_of(&server, &filled).await?;
            confirmation_error(&server, &current_user, Section::Sites, confirmation, error)
        }
    }
}
