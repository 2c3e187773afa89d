//! The OpenAPI document: made from the routes, with what every route has in common.

use std::sync::OnceLock;

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{OpenApi, openapi};

use crate::error::{FieldError, PROBLEM_JSON, Problem};
use crate::permissions::{ROUTES, Route};

/// What the document begins with.
const ABOUT: &str = "Many WordPress sites on two services, `blue` and `green`, of which one is the active canary.\n\n\
Every route but `/healthz`, `/readyz` and `/openapi.json` takes a token: `Authorization: Bearer …`. A `viewer` reads; an \
`operator` creates, provisions, upgrades, promotes, rolls out, retries and cancels; an `admin` also selects, deploys, \
rolls back, terminates, marks digests, freezes, and keeps webhooks, tokens and users. `x-required-role` of an operation is \
the least role that it takes; a retry and a cancel take the role of what they repeat or stop.\n\n\
Long work is answered with 202, the operation and its `Location`; with `?wait=30s` with 200 once the operation rests, \
however it ended. Refusals are problems (RFC 9457) with a stable `code`.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Cloud Deployment Manager", description = ABOUT),
    components(schemas(Problem, FieldError, crate::api::event::Event)),
    tags(
        (name = "sites", description = "Tenant sites, from their creation to their end."),
        (name = "services", description = "Blue and green, their images, and which of them is the active canary."),
        (name = "rollouts", description = "Many sites moved to the active canary, in waves."),
        (name = "freezes", description = "Times in which nobody is moved, or some are not."),
        (name = "webhooks", description = "Receivers that are told what happens."),
        (name = "operations", description = "Work that was accepted: its steps, why it waits, how it ended."),
        (name = "audit", description = "Who asked for what."),
        (name = "tokens", description = "Programs that may ask."),
        (name = "users", description = "People who sign in to the console."),
        (name = "events", description = "Server-Sent Events. A stream resumes after `Last-Event-ID`."),
        (name = "system", description = "How the server itself is."))
)]
struct Head;

/// The document as served, and as committed.
pub(crate) fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        text.push('\n');
        text
    })
}

fn document() -> openapi::OpenApi {
    let mut document = Head::openapi();
    document.merge(crate::router::open().into_openapi());
    let mut guarded = crate::router::guarded().into_openapi();
    for (path, item) in &mut guarded.paths.paths {
        let reads = item.get.iter_mut().map(|operation| (operation, false));
        let writes = item.post.iter_mut().chain(item.put.iter_mut()).chain(item.delete.iter_mut());
        for (operation, writes) in reads.chain(writes.map(|operation| (operation, true))) {
            refusals(operation, path, writes);
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
                describe(operation);
                require(operation, method, path);
            }
        }
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_with(Components::new);
    components.security_schemes.insert("token".to_owned(), bearer.into());
    document
}

/// Says which role a route takes at least, by the table of routes.
fn require(operation: &mut Operation, method: &str, path: &str) {
    let route = ROUTES.iter().find(|route| (route.method, route.path) == (method, path));
    if let Some(role) = route.and_then(Route::role) {
        let said = ExtensionsBuilder::new().add("x-required-role", role.as_str()).build();
        operation.extensions.get_or_insert_default().merge(said);
    }
}

/// Adds what every guarded route may refuse.
fn refusals(operation: &mut Operation, path: &str, writes: bool) {
    operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    let body = operation.request_body.is_some();
    // Nothing in it has to be said.
    if path == "/services/rollback"
        && let Some(RefOr::T(body)) = &mut operation.request_body
    {
        body.required = Some(Required::False);
    }
    let named = path.contains('{');
    let all = [("401", true), ("403", true), ("422", true), ("429", true), ("500", true), ("503", true)];
    let some = [("404", named || path == "/operations"), ("409", writes && !named)];
    let of_body = [("400", body), ("413", body), ("415", body)];
    for (status, can) in all.into_iter().chain(some).chain(of_body) {
        if can && !operation.responses.responses.contains_key(status) {
            operation.responses.responses.insert(status.to_owned(), problem(status));
        }
    }
    let refused: Vec<String> =
        operation.responses.responses.keys().filter(|code| *code >= &"4".to_owned()).cloned().collect();
    for status in refused {
        operation.responses.responses.insert(status.clone(), problem(&status));
    }
}

fn problem(status: &str) -> RefOr<openapi::Response> {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let said = match status {
        "400" => "The body is no JSON.",
        "401" => "No token that serves.",
        "403" => "The token's role is not enough.",
        "404" => "There is no such thing.",
        "409" => "The state does not take it.",
        "413" => "The body is too long.",
        "415" => "The body is not JSON.",
        "422" => "The input breaks a rule.",
        "429" => "Too many requests.",
        "503" => "A backend does not answer.",
        _ => "Something went wrong.",
    };
    let response = ResponseBuilder::new().description(said).content(PROBLEM_JSON, content);
    let response = match status {
        "401" => response.header("WWW-Authenticate", header(Type::String, "What kind of token is wanted.")),
        "429" => {
            response.header("Retry-After", header(Type::Integer, "After how many seconds to ask again."))
        }
        "503" => response.header(
            "Retry-After",
            header(Type::Integer, "After how many seconds to ask again, where that may help."),
        ),
        _ => response,
    };
    response.build().into()
}

fn header(kind: Type, said: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(said)).build()
}

/// Gives successes without words theirs, and every answer its headers.
fn describe(operation: &mut Operation) {
    operation.parameters.get_or_insert_default().push(request_id().into());
    let long = operation.responses.responses.contains_key("202");
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            let said = match (status.as_str(), long) {
                ("200", true) => "At rest, however it ended: what `wait` waited for.",
                ("200", false) => "Done.",
                ("201", _) => "Made.",
                ("202", _) => "Accepted; `Location` is where to look.",
                _ => "Not ready.",
            };
            said.clone_into(&mut response.description);
        }
        if status == "202" || (status == "200" && long) {
            response.headers.insert("Location".to_owned(), header(Type::String, "Where to look.").into());
        }
        let said = "The request's id, as in the audit and the log.";
        response.headers.insert("X-Request-Id".to_owned(), header(Type::String, said).into());
    }
}

/// `Idempotency-Key`, which every writing route but those of tokens takes: a token's text is not kept, so none can be
/// said a second time.
fn key() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]{1,255}$"));
    let said =
        "Repeats one request: the same key with the same request is answered as the first was, for 24 hours.";
    parameter("Idempotency-Key", said).schema(Some(schema)).build()
}

/// `Last-Event-ID`, by which a stream goes on: the same as its parameter `after`.
fn last_event(operation: &Operation) -> Option<Parameter> {
    let mut all = operation.parameters.iter().flatten();
    let after = all.find_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.name == "after" => parameter.schema.clone(),
        _ => None,
    })?;
    let said = "The id of the last event that was seen; goes before `after`.";
    Some(parameter("Last-Event-ID", said).schema(Some(after)).build())
}

fn request_id() -> Parameter {
    let said = "The request's id: 1 to 128 visible ASCII characters. Another one is replaced, a missing one is made up.";
    let schema = ObjectBuilder::new().schema_type(Type::String);
    parameter("X-Request-Id", said).schema(Some(schema)).build()
}

fn parameter(name: &str, said: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(said))
}
