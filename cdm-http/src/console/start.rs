//! The start of a rollout: the form, the plan, and the start of exactly that plan.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::manager::{Accepted, Action};
use serde_json::{Map, Value, json};

use super::confirm::{Field, FieldKind, is_correctable};
use super::form::Form;
use super::format;
use super::page::{Section, View, page, render};
use super::rollouts::PATH;
use super::session::{CurrentUser, PageRequest};
use crate::api::RolloutId;
use crate::api::ServiceName;
use crate::api::plan::Plan;
use crate::api::rollout::StartRollout;
use crate::app::{AppState, SharedState};
use crate::error::ApiError;

#[derive(Template)]
#[template(path = "start.html")]
struct Start<'a> {
    fields: Vec<Field>,
    plan: Option<Plan>,
    problem: Option<String>,
    csrf: &'a str,
    key: String,
    canary: ServiceName,
    /// The number of sites on each service, as text.
    sites: String,
}

/// Returns the fields of the form, with the names of the REST API and either the input or the defaults.
fn fields(form: Option<&Form>) -> Vec<Field> {
    let field = |name: &'static str, label: &str, hint: &str, kind: FieldKind, default: &str| Field {
        name,
        label: label.to_owned(),
        hint: hint.to_owned(),
        kind,
        value: form.map_or(default, |form| form.text(name)).to_owned(),
        ..Field::default()
    };
    let pair = |value: &str, label: &str| (value.to_owned(), label.to_owned());
    let kinds = vec![
        pair("true", "Promote: move routes and records"),
        pair("false", "Upgrade: move records, leave routes"),
    ];
    let scopes = vec![
        pair("inactive", "Sites on the other service"),
        pair("active", "Sites on the active canary"),
        pair("all", "All sites"),
        pair("sites", "Sites by id"),
    ];
    vec![
        field("promote", "What to do", "", FieldKind::Choice(kinds), "true"),
        field("scope", "Which sites", "", FieldKind::Choice(scopes), "inactive"),
        field("sites", "Site ids", "Separated by spaces; only with “Sites by id”.", FieldKind::Code, ""),
        field(
            "imageTag",
            "Image",
            "A digest to deploy first (requires the role admin). Default: the digest that runs.",
            FieldKind::Code,
            "",
        ),
        field(
            "waves",
            "Waves",
            "The end of each wave, as a count or a percentage of the sites; the last is 100%. For a single wave: 100%.",
            FieldKind::Code,
            "1 10% 100%",
        ),
        field("maxConcurrent", "Sites at once", "From 1 to 512.", FieldKind::Number, "64"),
        field(
            "failureBudget",
            "Failure budget",
            "How many sites of a wave may fail, as a count or a percentage.",
            FieldKind::Code,
            "0",
        ),
        field("bake", "Bake time between waves", "In seconds.", FieldKind::Number, "0"),
        field("autoRollback", "Roll back moved sites on a halt", "", FieldKind::Check, ""),
        field(
            "gatePath",
            "Health check",
            "A path that is requested from each site before and after its move. Leave it empty for no check, and for an upgrade.",
            FieldKind::Code,
            "/",
        ),
    ]
}

/// Converts the form to the request of the REST API.
fn parse_request(form: &Form) -> Result<StartRollout, ApiError> {
    let mut body = Map::new();
    let list = |name: &str| -> Vec<String> {
        let parts = form.text(name).split([',', ' ', '\n', '\r']);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let number = |name: &'static str| {
        let number = form.optional(name).map(str::parse::<u64>).transpose();
        number.map_err(|_| ApiError::field(name, "the value must be a number"))
    };
    body.insert("promote".to_owned(), json!(form.text("promote") == "true"));
    let scope = match form.text("scope") {
        "sites" => json!({ "sites": list("sites") }),
        scope => json!(scope),
    };
    body.insert("scope".to_owned(), scope);
    let budget = form
        .optional("failureBudget")
        .map(|text| text.parse::<u32>().map_or(json!(text), |count| json!(count)));
    let gate = form.optional("gatePath").map(|path| json!({ "path": path }));
    let waves = Some(list("waves")).filter(|waves| !waves.is_empty()).map(|waves| json!(waves));
    for (name, value) in [
        ("imageTag", form.optional("imageTag").map(|text| json!(text))),
        ("waves", waves),
        ("maxConcurrent", number("maxConcurrent")?.map(|number| json!(number))),
        ("failureBudget", budget),
        ("bake", number("bake")?.map(|number| json!(number))),
        ("gate", gate),
        ("planHash", form.optional("planHash").map(|text| json!(text))),
        ("autoRollback", form.optional("autoRollback").map(|_| json!(true))),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    serde_path_to_error::deserialize(Value::Object(body)).map_err(|error| {
        let field = error.path().to_string();
        ApiError::field(&field, error.into_inner().to_string())
    })
}

/// Shows the form, with the plan or an error if there is one.
async fn form_page(
    server: &AppState,
    current_user: &CurrentUser,
    status: StatusCode,
    (fields, plan, problem): (Vec<Field>, Option<Plan>, Option<String>),
) -> Result<Response, ApiError> {
    let fleet = server.app.manager.services().await?;
    let sites = format!(
        "{} on {}, {} on {}",
        format::count_of(fleet.service(fleet.canary).sites, "site is", "sites are"),
        fleet.canary,
        format::count(fleet.service(fleet.canary.other()).sites),
        fleet.canary.other()
    );
    let start = Start {
        fields,
        plan,
        problem,
        csrf: &current_user.csrf,
        key: server.request_ids.form_key(),
        canary: fleet.canary.into(),
        sites,
    };
    page(status, Some(current_user), &View::fixed("Start a rollout", Section::Rollouts, render(&start)?))
}

pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
) -> Result<Response, ApiError> {
    form_page(&server, &request.current_user, StatusCode::OK, (fields(None), None, None)).await
}

/// Shows the plan of the form, or starts the rollout if the form has the hash of a plan.
pub(crate) async fn start(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    if form.optional("imageTag").is_some() {
        server.app.manager.authorize(&request, Action::StartRolloutWithImage, "fleet").await?;
    }
    let mut filled = fields(Some(&form));
    let plan = form.optional("planHash");
    let error = match parse_request(&form).and_then(|body| Ok(body.parse(server.repository())?)) {
        Err(error) => error,
        Ok(requested) if plan.is_none() => match server.app.manager.plan(&request, &requested).await {
            Ok(plan) => {
                let plan = Plan::from(&plan);
                return form_page(&server, &current_user, StatusCode::OK, (filled, Some(plan), None)).await;
            }
            Err(error) => error.into(),
        },
        Ok(requested) => match server.app.manager.rollout(&request, &requested, plan).await {
            Ok(Accepted::Rollout(number)) => {
                return Ok(
                    Redirect::to(&format!("{PATH}/{}", RolloutId::from_number(number))).into_response()
                );
            }
            Ok(_) => return Ok(Redirect::to(PATH).into_response()),
            Err(error) => error.into(),
        },
    };
    if !is_correctable(&error) {
        return Err(error);
    }
    let mut error = error;
    for field_error in &mut error.problem.errors {
        // The form has separate fields for the nested fields of the API.
        let field = match field_error.field.as_str() {
            "scope.sites" => "sites",
            field if field.starts_with("gate") => "gatePath",
            _ => continue,
        };
        field.clone_into(&mut field_error.field);
    }
    let problem = Field::assign_errors(&mut filled, &error);
    form_page(&server, &current_user, error.status, (filled, None, problem)).await
}
