//! The start of a rollout: a form, a plan that says what it would do, and the rollout itself, which is that plan or none.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::manager::{Accepted, Action};
use serde_json::{Map, Value, json};

use super::confirm::{Field, FieldKind, mends};
use super::form::Form;
use super::guard::{Visit, Visitor};
use super::page::{Section, View, page, rendered};
use super::rollouts::PATH;
use super::shape;
use crate::api::plan::Plan;
use crate::api::rollout::{StartRollout, id};
use crate::app::{Server, Shared};
use crate::error::Refusal;

#[derive(Template)]
#[template(path = "start.html")]
struct Start<'a> {
    fields: Vec<Field>,
    plan: Option<Plan>,
    problem: Option<String>,
    csrf: &'a str,
    key: String,
    canary: String,
    sites: String,
}

/// What the form asks for, each with what is usual: the REST API's own names.
fn fields(form: Option<&Form>) -> Vec<Field> {
    let field = |name: &'static str, label: &str, hint: &str, kind: FieldKind, usual: &str| Field {
        name,
        label: label.to_owned(),
        hint: hint.to_owned(),
        kind,
        value: form.map_or(usual, |form| form.text(name)).to_owned(),
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
        pair("sites", "These sites"),
    ];
    vec![
        field("promote", "What to do", "", FieldKind::Choice(kinds), "true"),
        field("scope", "Which sites", "", FieldKind::Choice(scopes), "inactive"),
        field(
            "sites",
            "These sites",
            "Their ids, with spaces; only with “These sites”.",
            FieldKind::Code,
            "",
        ),
        field(
            "imageTag",
            "Image",
            "A digest that is deployed first; left out, the one that runs. Takes the role admin.",
            FieldKind::Code,
            "",
        ),
        field(
            "waves",
            "Waves",
            "How far each goes: counts or percentages, the last 100%. One wave: 100%.",
            FieldKind::Code,
            "1 10% 100%",
        ),
        field("maxConcurrent", "Sites at once", "From 1 to 512.", FieldKind::Number, "64"),
        field(
            "failureBudget",
            "Failure budget",
            "How many sites of a wave may fail: a count or a percentage.",
            FieldKind::Code,
            "0",
        ),
        field("bake", "Seconds between waves", "", FieldKind::Number, "0"),
        field("autoRollback", "Take moved sites back on a halt", "", FieldKind::Check, ""),
        field(
            "gatePath",
            "Health check",
            "A path that each site is asked before and after its move. Left out, none; an upgrade has none.",
            FieldKind::Code,
            "/",
        ),
    ]
}

/// The form as the REST API's request.
fn request(form: &Form) -> Result<StartRollout, Refusal> {
    let mut body = Map::new();
    let words = |name: &str| -> Vec<String> {
        let parts = form.text(name).split([',', ' ', '\n', '\r']);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let number = |name: &'static str| {
        let number = form.given(name).map(str::parse::<u64>).transpose();
        number.map_err(|_| Refusal::field(name, "this is no number"))
    };
    body.insert("promote".to_owned(), json!(form.text("promote") == "true"));
    let scope = match form.text("scope") {
        "sites" => json!({ "sites": words("sites") }),
        scope => json!(scope),
    };
    body.insert("scope".to_owned(), scope);
    let budget =
        form.given("failureBudget").map(|text| text.parse::<u32>().map_or(json!(text), |count| json!(count)));
    let gate = form.given("gatePath").map(|path| json!({ "path": path }));
    let waves = Some(words("waves")).filter(|waves| !waves.is_empty()).map(|waves| json!(waves));
    for (name, value) in [
        ("imageTag", form.given("imageTag").map(|text| json!(text))),
        ("waves", waves),
        ("maxConcurrent", number("maxConcurrent")?.map(|number| json!(number))),
        ("failureBudget", budget),
        ("bake", number("bake")?.map(|number| json!(number))),
        ("gate", gate),
        ("planHash", form.given("planHash").map(|text| json!(text))),
        ("autoRollback", form.given("autoRollback").map(|_| json!(true))),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    serde_path_to_error::deserialize(Value::Object(body)).map_err(|error| {
        let field = error.path().to_string();
        Refusal::field(&field, error.into_inner().to_string())
    })
}

async fn form_page(
    server: &Server,
    visitor: &Visitor,
    status: StatusCode,
    (fields, plan, problem): (Vec<Field>, Option<Plan>, Option<String>),
) -> Result<Response, Refusal> {
    let fleet = server.app.manager.services().await?;
    let told = format!(
        "{} on it, {} on the other service",
        shape::counted(fleet.service(fleet.canary).sites, "site is", "sites are"),
        shape::count(fleet.service(fleet.canary.other()).sites)
    );
    let start = Start {
        fields,
        plan,
        problem,
        csrf: &visitor.csrf,
        key: server.ids.key(),
        canary: fleet.canary.to_string(),
        sites: told,
    };
    page(status, Some(visitor), &View::still("Start a rollout", Section::Rollouts, rendered(&start)?))
}

/// Asks what to roll out.
pub(crate) async fn ask(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    form_page(&server, &visit.visitor, StatusCode::OK, (fields(None), None, None)).await
}

/// Shows the plan, or starts the rollout that it is.
pub(crate) async fn start(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, asks) = form.asks()?;
    if form.given("imageTag").is_some() {
        server.app.manager.authorize(&asks, Action::StartRolloutWithImage, "fleet").await?;
    }
    let mut filled = fields(Some(&form));
    let refusal = match request(&form).and_then(|body| body.parse(server.repository())) {
        Err(refusal) => refusal,
        Ok(wanted) if form.given("planHash").is_none() => {
            match server.app.manager.plan(&asks, &wanted).await {
                Ok(plan) => {
                    let plan = Plan::from(&plan);
                    return form_page(&server, &visitor, StatusCode::OK, (filled, Some(plan), None)).await;
                }
                Err(error) => error.into(),
            }
        }
        Ok(wanted) => match server.app.manager.rollout(&asks, &wanted).await {
            Ok(Accepted::Rollout(number)) => {
                return Ok(Redirect::to(&format!("{PATH}/{}", id(number))).into_response());
            }
            Ok(_) => return Ok(Redirect::to(PATH).into_response()),
            Err(error) => error.into(),
        },
    };
    if !mends(&refusal) {
        return Err(refusal);
    }
    let mut refusal = refusal;
    for error in &mut refusal.problem.errors {
        // The form has two fields of its own for what the API puts into one.
        let own = match error.field.as_str() {
            "scope.sites" => "sites",
            field if field.starts_with("gate") => "gatePath",
            _ => continue,
        };
        own.clone_into(&mut error.field);
    }
    let problem = Field::blame(&mut filled, &refusal);
    form_page(&server, &visitor, refusal.status, (filled, None, problem)).await
}
