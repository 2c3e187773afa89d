//! A new site.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::manager::Accepted;

use super::PATH;
use crate::api::site::CreateSite;
use crate::api::words;
use crate::app::{Server, Shared};
use crate::console::confirm::{Field, FieldKind, Question, asked, asked_again};
use crate::console::form::Form;
use crate::console::guard::Visit;
use crate::console::page::Section;
use crate::error::Refusal;

/// The form of a new site, with what was filled in.
async fn form_of(server: &Server, filled: &CreateSite) -> Result<Question, Refusal> {
    let canary = server.app.manager.services().await?.canary;
    let mut services = vec![(String::new(), format!("{canary}, the active canary"))];
    services.extend(words::service_names().map(|name| (name.to_owned(), name.to_owned())));
    let field = |name, label: &str, hint: &str, kind, value: &str| Field {
        name,
        label: label.to_owned(),
        hint: hint.to_owned(),
        kind,
        value: value.to_owned(),
        problem: None,
        required: name != "service" && name != "canonicalHostname",
    };
    Ok(Question {
        title: "Create a site".to_owned(),
        lines: vec![
            "Claims the id and the hostnames, and makes the site's credentials. Provisioning makes it live."
                .to_owned(),
        ],
        fields: vec![
            field(
                "id",
                "Id",
                "Lower-case letters, digits and hyphens, at most 32. It stays.",
                FieldKind::Code,
                &filled.id,
            ),
            field("name", "Title", "As visitors read it.", FieldKind::Line, &filled.name),
            field("theme", "Theme", "Such as twentytwentyfive.", FieldKind::Code, &filled.theme),
            field(
                "hostnames",
                "Hostnames",
                "One on each line, at most 16.",
                FieldKind::Lines,
                &filled.hostnames.join("\n"),
            ),
            field(
                "canonicalHostname",
                "Canonical hostname",
                "One of them; the first where it is left out.",
                FieldKind::Code,
                &filled.canonical_hostname,
            ),
            field(
                "service",
                "Service",
                "",
                FieldKind::Choice(services),
                filled.service.as_deref().unwrap_or_default(),
            ),
        ],
        button: "Create the site".to_owned(),
        action: format!("{PATH}/create"),
        back: PATH.to_owned(),
        ..Question::default()
    })
}

/// Asks for a new site.
pub(crate) async fn ask(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    let empty = CreateSite {
        id: String::new(),
        theme: String::new(),
        hostnames: Vec::new(),
        service: None,
        name: String::new(),
        canonical_hostname: String::new(),
    };
    let question = form_of(&server, &empty).await?;
    asked(&server, &visit.visitor, Section::Sites, StatusCode::OK, &question)
}

/// Creates it, and leads to its page.
pub(crate) async fn create(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let hosts = form.text("hostnames").split([',', ' ', '\n', '\r']).filter(|host| !host.is_empty());
    let hostnames: Vec<String> = hosts.map(str::to_owned).collect();
    let canonical = form.given("canonicalHostname").or(hostnames.first().map(String::as_str));
    let filled = CreateSite {
        id: form.text("id").to_owned(),
        theme: form.text("theme").to_owned(),
        canonical_hostname: canonical.unwrap_or_default().to_owned(),
        hostnames,
        service: form.given("service").map(str::to_owned),
        name: form.text("name").to_owned(),
    };
    let done = match filled.parse() {
        Ok(new) => server.app.manager.create_site(&request, &new).await.map_err(Refusal::from),
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(accepted) => {
            if let Accepted::Operation(operation) = &accepted {
                // It is usually done at once; a page without it would only be a moment old.
                server.rested(operation, crate::routes::AT_ONCE).await?;
            }
            Ok(Redirect::to(&format!("{PATH}/{}", filled.id)).into_response())
        }
        Err(refusal) => {
            let question = form_of(&server, &filled).await?;
            asked_again(&server, &visitor, Section::Sites, question, refusal)
        }
    }
}
