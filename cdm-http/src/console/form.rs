//! The fields of a submitted form, with the session and the client that sent it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use cdm_core::domain::{Actor, IdempotencyKey, Role};
use cdm_core::manager;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::session::CurrentUser;
use crate::app::SharedState;
use crate::client::Client;
use crate::error::ApiError;
use crate::hashing::Requester;
use crate::limits::network;
use crate::request_id::RequestId;

/// A submitted form. If the request has a session, the form contains the CSRF token of the session.
#[derive(Debug)]
pub(crate) struct Form {
    fields: BTreeMap<String, String>,
    pub(crate) current_user: Option<Arc<CurrentUser>>,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Client,
    request_id: Option<String>,
}

impl Form {
    /// Returns a form without fields, for a request that a redirect led to this server.
    #[cfg(feature = "oidc")]
    pub(crate) const fn empty(headers: HeaderMap, client: Client, request_id: Option<String>) -> Self {
        Self { fields: BTreeMap::new(), current_user: None, headers, client, request_id }
    }

    /// Returns the value of a field without surrounding white space; an empty string if the form has no such field.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |text| text.trim())
    }

    /// Returns the value of a field like [`Form::text`]; `None` if the value is empty.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Returns the requester of a password check for a client that has not authenticated.
    pub(crate) fn anonymous_requester(&self) -> Requester {
        match self.client.address {
            Some(address) if !address.is_loopback() => Requester::Address(network(address)),
            _ => Requester::Loopback,
        }
    }

    /// Returns the value of a password field, including white space.
    pub(crate) fn secret(&self, name: &str) -> SecretString {
        SecretString::from(self.fields.get(name).map_or("", String::as_str))
    }

    /// Returns a request of `actor` with `role`, and with the form's idempotency key, if any.
    pub(crate) fn request_as(&self, actor: Actor, role: Role) -> manager::Request {
        let key = self.optional("key").and_then(|key| IdempotencyKey::parse(key).ok());
        manager::Request {
            id: self.request_id.clone(),
            key,
            address: self.client.address,
            ..manager::Request::by(actor, role)
        }
    }

    /// Returns the current user and a request of that user.
    ///
    /// # Errors
    /// If the request has no session.
    pub(crate) fn authenticated_request(&self) -> Result<(Arc<CurrentUser>, manager::Request), ApiError> {
        let current_user = self.current_user.clone().ok_or_else(ApiError::unauthorized)?;
        let request = self.request_as(current_user.name.actor(), current_user.role);
        Ok((current_user, request))
    }
}

impl FromRequest<SharedState> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &SharedState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let limit = server.app.settings.body;
        let bytes = to_bytes(body, limit).await.map_err(|_| ApiError::too_large(limit))?;
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&bytes) {
            fields.insert(name.into_owned(), value.into_owned());
        }
        let current_user = parts.extensions.get::<Arc<CurrentUser>>().cloned();
        let submitted = fields.get("csrf").map(|csrf| Sha256::digest(csrf.as_bytes()));
        if let Some(current_user) = &current_user
            && submitted != Some(Sha256::digest(current_user.csrf.as_bytes()))
        {
            let detail =
                "the form belongs to another session; go back, reload the page and submit the form again";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "stale_form", detail));
        }
        Ok(Self {
            fields,
            current_user,
            client: Client::from_extensions(&parts.extensions),
            request_id: parts.extensions.get::<RequestId>().map(|id| id.0.clone()),
            headers: parts.headers,
        })
    }
}
