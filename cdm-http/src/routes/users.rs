//! Routes of users, who sign in to the console.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cdm_core::domain::UserName;
use cdm_core::manager::{self, NewUser, UserChange};
use secrecy::SecretString;

use super::response::with_location;
use crate::api::list::Listing;
use crate::api::user::{ChangeUser, CreateUser, User};
use crate::app::{AppState, SharedState};
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{JsonBody, NoQuery, PathParam, PathSegment, QueryParams};
use crate::hashing::Requester;
use crate::password;

impl PathSegment for UserName {
    fn from_segment(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).map_err(|_| ApiError::not_found("the user"))
    }
}

/// Returns the requester of a password hash.
fn requester(request: &manager::Request) -> Requester {
    Requester::Known(request.actor.to_string())
}

/// Returns the check of a new password; `enabled` is whether users may have passwords.
fn password_check(enabled: bool) -> impl Fn(&SecretString, &str) -> Result<(), &'static str> {
    move |password, name| match enabled {
        true => password::check_strength(password, name),
        false => Err("passwords are disabled on this server; leave the field out"),
    }
}

/// Returns the API's representation of a user, also of a removed one.
async fn shown(server: &AppState, name: &UserName) -> Result<Json<User>, ApiError> {
    let users = server.app.manager.users().await?;
    let user = users.list.iter().find(|user| user.name == *name);
    let user = user.ok_or_else(|| ApiError::not_found("the user"))?;
    Ok(Json(User::new(user, &users, server.app.clock.wall())))
}

/// Lists users in the order of their creation, including removed users; at most 1,000.
#[utoipa::path(get, path = "/users", operation_id = "listUsers", tag = "users", responses(
    (status = 200, body = Listing<User>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    _: QueryParams<NoQuery>,
) -> Result<Json<Listing<User>>, ApiError> {
    let (users, now) = (server.app.manager.list_users(&request).await?, server.app.clock.wall());
    let items = users.list.iter().map(|user| User::new(user, &users, now)).collect();
    Ok(Json(Listing { items, next: None }))
}

/// Creates a user, who may then sign in to the console. Only a hash of the password is stored.
#[utoipa::path(post, path = "/users", operation_id = "createUser", tag = "users", request_body(content = CreateUser, examples(
    ("operator" = (summary = "A user who moves sites", value = json!({"name": "ada", "role": "operator",
        "password": "a long sentence that no one says"}))),
    ("organisation" = (summary = "A user who signs in with OpenID Connect", value = json!({
        "name": "grace@example.com", "role": "viewer"}))))), responses(
    (status = 201, body = User), (status = 409)))]
pub(crate) async fn create(
    State(server): State<SharedState>,
    CallerRequest(mut request): CallerRequest,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<CreateUser>,
) -> Result<Response, ApiError> {
    let (name, role) = body.parse(password_check(server.app.settings.passwords))?;
    let password = match body.password {
        Some(password) => {
            let requester = requester(&request);
            request.secret =
                server.passwords.fingerprint(requester.clone(), password.clone(), &request).await?;
            server.passwords.hash(requester, password).await?
        }
        None => password::unusable(),
    };
    let user = server.app.manager.create_user(&request, &NewUser { name, role, password }).await?;
    let location = format!("/users/{}", user.name);
    Ok(with_location(StatusCode::CREATED, &location, shown(&server, &user.name).await?))
}

/// Changes a user's role or password, or removes their second factor or their OpenID Connect account.
///
/// Every change except a change of the role signs the user out everywhere.
#[utoipa::path(put, path = "/users/{name}", operation_id = "changeUser", tag = "users", params(("name" = String, Path, description = "The name of the user.")),
    request_body(content = ChangeUser, examples(
    ("role" = (summary = "Another role", value = json!({"role": "viewer"}))),
    ("password" = (summary = "Another password", value = json!({"password": "another sentence that no one says"}))),
    ("second factor" = (summary = "Remove the second factor of a user who lost their authenticator app", value = json!({"secondFactor": "none"}))))), responses(
    (status = 200, body = User)))]
pub(crate) async fn change(
    State(server): State<SharedState>,
    CallerRequest(mut request): CallerRequest,
    PathParam(name): PathParam<UserName>,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<ChangeUser>,
) -> Result<Json<User>, ApiError> {
    let role = body.parse(name.as_str(), password_check(server.app.settings.passwords))?;
    let password = match body.password {
        Some(password) => {
            let requester = requester(&request);
            request.secret =
                server.passwords.fingerprint(requester.clone(), password.clone(), &request).await?;
            Some(server.passwords.hash(requester, password).await?)
        }
        None => None,
    };
    let (second, identity) = (body.second_factor.is_some(), body.identity.is_some());
    let change = UserChange { role, password, reset_second_factor: second, unbind_identity: identity };
    let user = server.app.manager.change_user(&request, &name, &change).await?;
    shown(&server, &user.name).await
}

/// Removes a user and signs them out. The name is never assigned again, so audit entries stay unambiguous.
#[utoipa::path(delete, path = "/users/{name}", operation_id = "removeUser", tag = "users", params(("name" = String, Path, description = "The name of the user.")),
    responses((status = 200, body = User)))]
pub(crate) async fn remove(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(name): PathParam<UserName>,
    _: QueryParams<NoQuery>,
) -> Result<Json<User>, ApiError> {
    server.app.manager.remove_user(&request, &name).await?;
    shown(&server, &name).await
}

/// Signs a user out everywhere; they may sign in again.
#[utoipa::path(delete, path = "/users/{name}/sessions", operation_id = "endSessions", tag = "users", params(("name" = String, Path, description = "The name of the user.")),
    responses((status = 200, body = User)))]
pub(crate) async fn end_sessions(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(name): PathParam<UserName>,
    _: QueryParams<NoQuery>,
) -> Result<Json<User>, ApiError> {
    server.app.manager.close_session(&request, &name, None).await?;
    shown(&server, &name).await
}
