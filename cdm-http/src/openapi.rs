//! The OpenAPI document: made from the routes, with the refusals that every route has in common.

use std::sync::OnceLock;

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, ResponseBuilder};

use crate::error::{FieldError, PROBLEM_JSON, Problem};

#[derive(OpenApi)]
#[openapi(
    info(title = "Cloud Deployment Manager", description = "Many sites on two services, blue and green."),
    components(schemas(Problem, FieldError)),
    tags(
        (name = "sites"), (name = "services"), (name = "rollouts"), (name = "operations"),
        (name = "audit"), (name = "tokens"), (name = "events"), (name = "system"))
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

fn document() -> utoipa::openapi::OpenApi {
    let mut document = Head::openapi();
    document.merge(crate::router::open().into_openapi());
    let mut guarded = crate::router::guarded().into_openapi();
    for (path, item) in &mut guarded.paths.paths {
        let reads = item.get.iter_mut().map(|operation| (operation, false));
        let writes = item.post.iter_mut().chain(item.put.iter_mut()).chain(item.delete.iter_mut());
        for (operation, writes) in reads.chain(writes.map(|operation| (operation, true))) {
            refusals(operation, path, writes);
        }
    }
    document.merge(guarded);
    for item in document.paths.paths.values_mut() {
        for operation in
            [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
        {
            describe(operation);
        }
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_with(Components::new);
    components.security_schemes.insert("token".to_owned(), bearer.into());
    document
}

/// Adds what every guarded route may refuse.
fn refusals(operation: &mut Operation, path: &str, writes: bool) {
    operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    let body = operation.request_body.is_some();
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

fn problem(status: &str) -> RefOr<utoipa::openapi::Response> {
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
    ResponseBuilder::new().description(said).content(PROBLEM_JSON, content).build().into()
}

/// Gives successes without words theirs.
fn describe(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            let said = match status.as_str() {
                "200" => "Done.",
                "201" => "Made.",
                "202" => "Accepted; see Location.",
                _ => "Not ready.",
            };
            said.clone_into(&mut response.description);
        }
    }
}
