//! The OpenAPI document: generated from the routes, with the headers and errors that all routes share.

use std::sync::OnceLock;

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{OpenApi, openapi};

use crate::api::event::Event;
use crate::api::problem::{FieldError, Problem};
use crate::error::PROBLEM_JSON;
use crate::permissions::{ROUTES, Route};

/// The description of the API.
const DESCRIPTION: &str = "Manages many WordPress sites on two services, `blue` and `green`, of which one is the active \
canary.\n\n\
Every route except `/healthz`, `/readyz` and `/openapi.json` needs a token: `Authorization: Bearer …`. A `viewer` reads; \
an `operator` also creates, provisions, upgrades and promotes sites, starts rollouts, retries and cancels; an `admin` also \
selects, deploys, rolls back, terminates, marks digests, freezes, and manages webhooks, tokens and users. \
`x-required-role` is the lowest role that may call a route; a retry and a cancel need the role of the request that they \
repeat or cancel.\n\n\
A request that starts an operation returns 202 with the operation and its `Location`; with `?wait=30s`, it returns 200 if \
the operation ends or is parked within 30 seconds, with any result. Errors are problem documents (RFC 9457) with a stable \
`code`.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Cloud Deployment Manager", description = DESCRIPTION),
    components(schemas(Problem, FieldError, Event)),
    tags(
        (name = "sites", description = "Sites of tenants: creation, provisioning, moves and termination."),
        (name = "services", description = "The services blue and green, their images, and the active canary."),
        (name = "rollouts", description = "Moves of many sites to the active canary, in waves."),
        (name = "freezes", description = "Periods in which no site, or no site of a list, is moved."),
        (name = "webhooks", description = "Receivers of event messages."),
        (name = "operations", description = "Accepted requests: their steps, why they wait, and how they ended."),
        (name = "audit", description = "The audit log: requests for changes and rejected requests, with their actors."),
        (name = "tokens", description = "Tokens of programs that use the API."),
        (name = "users", description = "Users who sign in to the console."),
        (name = "events", description = "Event streams (Server-Sent Events). A stream resumes after `Last-Event-ID`."),
        (name = "system", description = "Health, metrics and the OpenAPI document of the server."))
)]
struct ApiDocument;

/// Returns the document as it is served and committed.
pub(crate) fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        text.push('\n');
        text
    })
}

fn document() -> openapi::OpenApi {
    let mut document = ApiDocument::openapi();
    document.merge(crate::routes::open().into_openapi());
    let mut guarded = crate::routes::guarded().into_openapi();
    for (path, item) in &mut guarded.paths.paths {
        let reads = item.get.iter_mut().map(|operation| (operation, false));
        let writes = item.post.iter_mut().chain(item.put.iter_mut()).chain(item.delete.iter_mut());
        for (operation, writes) in reads.chain(writes.map(|operation| (operation, true))) {
            add_errors(operation, path, writes);
            if let Some(last) = last_event(operation) {
                operation.parameters.get_or_insert_default().push(last.into());
            }
            if writes && !path.starts_with("/tokens") {
                operation.parameters.get_or_insert_default().push(key().into());
            }
        }
    }
    document.merge(guarded);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in [
            ("GET", &mut item.get),
            ("POST", &mut item.post),
            ("PUT", &mut item.put),
            ("DELETE", &mut item.delete),
        ] {
            if let Some(operation) = operation {
                add_descriptions(operation);
                add_required_role(operation, method, path);
            }
        }
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_with(Components::new);
    components.security_schemes.insert("token".to_owned(), bearer.into());
    document
}

/// Adds the lowest role that may call a route, from the table of routes.
fn add_required_role(operation: &mut Operation, method: &str, path: &str) {
    let route = ROUTES.iter().find(|route| (route.method, route.path) == (method, path));
    if let Some(role) = route.and_then(Route::role) {
        let extensions = ExtensionsBuilder::new().add("x-required-role", role.as_str()).build();
        operation.extensions.get_or_insert_default().merge(extensions);
    }
}

/// Adds the error responses of a route that needs a token.
fn add_errors(operation: &mut Operation, path: &str, writes: bool) {
    operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    let body = operation.request_body.is_some();
    // No field of this body is required.
    if path == "/services/rollback"
        && let Some(RefOr::T(body)) = &mut operation.request_body
    {
        body.required = Some(Required::False);
    }
    let named = path.contains('{');
    let all = [("401", true), ("403", true), ("422", true), ("429", true), ("500", true), ("503", true)];
    let some = [("404", named || path == "/operations"), ("409", writes && !named)];
    let of_body = [("400", body), ("413", body), ("415", body)];
    for (status, possible) in all.into_iter().chain(some).chain(of_body) {
        if possible && !operation.responses.responses.contains_key(status) {
            operation.responses.responses.insert(status.to_owned(), problem(status));
        }
    }
    let errors: Vec<String> =
        operation.responses.responses.keys().filter(|code| *code >= &"4".to_owned()).cloned().collect();
    for status in errors {
        operation.responses.responses.insert(status.clone(), problem(&status));
    }
}

fn problem(status: &str) -> RefOr<openapi::Response> {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let description = match status {
        "400" => "The body is not valid JSON.",
        "401" => "The token is missing, invalid, revoked or expired, or not valid for this address.",
        "403" => "The role of the token does not permit the request.",
        "404" => "The object does not exist.",
        "409" => "The current state does not permit the request.",
        "413" => "The body is too large.",
        "415" => "The content type of the body is not JSON.",
        "422" => "The input is not valid.",
        "429" => "Too many requests.",
        "503" => "A backend does not respond.",
        _ => "An internal error occurred.",
    };
    let response = ResponseBuilder::new().description(description).content(PROBLEM_JSON, content);
    let response = match status {
        "401" => {
            response.header("WWW-Authenticate", header(Type::String, "The required authentication scheme."))
        }
        "429" => {
            response.header("Retry-After", header(Type::Integer, "The seconds after which to try again."))
        }
        "503" => response.header(
            "Retry-After",
            header(Type::Integer, "The seconds after which to try again, if that may help."),
        ),
        _ => response,
    };
    response.build().into()
}

fn header(kind: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

/// Adds the missing descriptions of successful responses, and the headers of all responses.
fn add_descriptions(operation: &mut Operation) {
    operation.parameters.get_or_insert_default().push(request_id().into());
    let long = operation.responses.responses.contains_key("202");
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            let description = match (status.as_str(), long) {
                ("200", true) => "The operation has ended or is parked, within `wait`.",
                ("200", false) => "The request succeeded.",
                ("201", _) => "The object was created.",
                ("202", _) => "The request was accepted; `Location` is the URL of the operation or rollout.",
                _ => "The server is not ready.",
            };
            description.clone_into(&mut response.description);
        }
        if status == "202" || (status == "200" && long) {
            let description = "The URL of the operation or rollout.";
            response.headers.insert("Location".to_owned(), header(Type::String, description).into());
        }
        let description = "The id of the request, which the audit log and the server log contain too.";
        response.headers.insert("X-Request-Id".to_owned(), header(Type::String, description).into());
    }
}

/// Returns the header `Idempotency-Key` of all writing routes except the routes of tokens: the text of a token is not
/// stored, so a response with it cannot be repeated.
fn key() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]{1,255}$"));
    let description = "Makes the request safe to repeat: for 24 hours, the same request with the same key returns the \
                       response of the first request.";
    parameter("Idempotency-Key", description).schema(Some(schema)).build()
}

/// Returns the header `Last-Event-ID` of a stream, which has the schema of the parameter `after`.
fn last_event(operation: &Operation) -> Option<Parameter> {
    let mut all = operation.parameters.iter().flatten();
    let after = all.find_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.name == "after" => parameter.schema.clone(),
        _ => None,
    })?;
    let description = "The id of the last received event; takes precedence over `after`.";
    Some(parameter("Last-Event-ID", description).schema(Some(after)).build())
}

fn request_id() -> Parameter {
    let description = "The id of the request: 1 to 128 visible ASCII characters. An invalid or missing id is replaced by a \
                       generated one.";
    let schema = ObjectBuilder::new().schema_type(Type::String);
    parameter("X-Request-Id", description).schema(Some(schema)).build()
}

fn parameter(name: &str, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
}
