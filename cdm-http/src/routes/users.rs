//! What is asked of people who sign in to the console.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cdm_core::domain::UserName;
use cdm_core::manager::{self, NewUser, UserChange};

use super::located;
use crate::api::list::Listing;
use crate::api::user::{ChangeUser, CreateUser, User};
use crate::app::{Server, Shared};
use crate::auth::Asked;
use crate::error::Refusal;
use crate::hashing::Requester;
use crate::input::{Body, Named, Nothing, Params, Part};
use crate::password;

impl Named for UserName {
    fn named(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).map_err(|_| Refusal::not_found("the user"))
    }
}

/// Who waits for a password's hash.
fn asker(request: &manager::Request) -> Requester {
    Requester::Known(request.actor.to_string())
}

/// A person as they are now, or were.
async fn shown(server: &Server, name: &UserName) -> Result<Json<User>, Refusal> {
    let users = server.app.manager.users().await?;
    let user = users.list.iter().find(|user| user.name == *name);
    let user = user.ok_or_else(|| Refusal::not_found("the user"))?;
    Ok(Json(User::new(user, &users, server.app.clock.wall())))
}

/// Lists the people who sign in to the console, in the order of their making, removed ones too; there are never more than
/// 1,000.
#[utoipa::path(get, path = "/users", operation_id = "listUsers", tag = "users", responses(
    (status = 200, body = Listing<User>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    Asked(request): Asked,
    _: Params<Nothing>,
) -> Result<Json<Listing<User>>, Refusal> {
    let (users, now) = (server.app.manager.list_users(&request).await?, server.app.clock.wall());
    let items = users.list.iter().map(|user| User::new(user, &users, now)).collect();
    Ok(Json(Listing { items, next: None }))
}

/// Lets a person sign in to the console. The password is kept as a hash.
#[utoipa::path(post, path = "/users", operation_id = "createUser", tag = "users", request_body(content = CreateUser, examples(
    ("operator" = (summary = "Someone who moves sites", value = json!({"name": "ada", "role": "operator",
        "password": "a long sentence that nobody says"}))),
    ("organisation" = (summary = "Someone for whom a provider of OpenID Connect vouches", value = json!({
        "name": "grace@example.com", "role": "viewer"}))))), responses(
    (status = 201, body = User), (status = 409)))]
pub(crate) async fn create(
    State(server): State<Shared>,
    Asked(mut request): Asked,
    _: Params<Nothing>,
    Body(body): Body<CreateUser>,
) -> Result<Response, Refusal> {
    let (name, role) = body.parse(server.app.settings.passwords)?;
    let password = match body.password {
        Some(password) => {
            let asker = asker(&request);
            request.secret = server.passwords.repeatable(asker.clone(), password.clone(), &request).await?;
            server.passwords.hash(asker, password).await?
        }
        None => password::none(),
    };
    let user = server.app.manager.create_user(&request, &NewUser { name, role, password }).await?;
    let location = format!("/users/{}", user.name);
    Ok(located(StatusCode::CREATED, &location, shown(&server, &user.name).await?))
}

/// Changes a person's role or password, or takes their second factor or their account of the provider of OpenID Connect
/// away; with all but another role they are signed out everywhere.
#[utoipa::path(put, path = "/users/{name}", operation_id = "changeUser", tag = "users", params(("name" = String, Path, description = "Who.")),
    request_body(content = ChangeUser, examples(
    ("role" = (summary = "Another role", value = json!({"role": "viewer"}))),
    ("password" = (summary = "Another password", value = json!({"password": "another sentence that nobody says"}))),
    ("second factor" = (summary = "Who lost their authenticator app sets up another", value = json!({"secondFactor": "none"}))))), responses(
    (status = 200, body = User)))]
pub(crate) async fn change(
    State(server): State<Shared>,
    Asked(mut request): Asked,
    Part(name): Part<UserName>,
    _: Params<Nothing>,
    Body(body): Body<ChangeUser>,
) -> Result<Json<User>, Refusal> {
    let role = body.parse(name.as_str(), server.app.settings.passwords)?;
    let password = match body.password {
        Some(password) => {
            let asker = asker(&request);
            request.secret = server.passwords.repeatable(asker.clone(), password.clone(), &request).await?;
            Some(server.passwords.hash(asker, password).await?)
        }
        None => None,
    };
    let (second, identity) = (body.second_factor.is_some(), body.identity.is_some());
    let change = UserChange { role, password, reset_second_factor: second, unbind_identity: identity };
    let user = server.app.manager.change_user(&request, &name, &change).await?;
    shown(&server, &user.name).await
}

/// Signs a person out for good. Their name is never given again, so that the audit goes on meaning them.
#[utoipa::path(delete, path = "/users/{name}", operation_id = "removeUser", tag = "users", params(("name" = String, Path, description = "Who.")),
    responses((status = 200, body = User)))]
pub(crate) async fn remove(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(name): Part<UserName>,
    _: Params<Nothing>,
) -> Result<Json<User>, Refusal> {
    server.app.manager.remove_user(&request, &name).await?;
    shown(&server, &name).await
}

/// Signs a person out everywhere; they may sign in again.
#[utoipa::path(delete, path = "/users/{name}/sessions", operation_id = "endSessions", tag = "users", params(("name" = String, Path, description = "Who.")),
    responses((status = 200, body = User)))]
pub(crate) async fn end_sessions(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(name): Part<UserName>,
    _: Params<Nothing>,
) -> Result<Json<User>, Refusal> {
    server.app.manager.close_session(&request, &name, None).await?;
    shown(&server, &name).await
}
