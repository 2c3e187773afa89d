//! What a page sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use cdm_core::domain::{Actor, IdempotencyKey, Role};
use cdm_core::manager;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::guard::Visitor;
use crate::app::Shared;
use crate::client::Client;
use crate::error::Refusal;
use crate::hashing::Requester;
use crate::limits::network;
use crate::request::RequestId;

/// A form as it was sent. Where there is a session, it brought the session's token.
#[derive(Debug)]
pub(crate) struct Form {
    fields: BTreeMap<String, String>,
    pub(crate) visitor: Option<Arc<Visitor>>,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Client,
    request_id: Option<String>,
}

impl Form {
    /// None that was sent, for somebody whom another page led here.
    #[cfg(feature = "oidc")]
    pub(crate) const fn bare(headers: HeaderMap, client: Client, request_id: Option<String>) -> Self {
        Self { fields: BTreeMap::new(), visitor: None, headers, client, request_id }
    }

    /// What a field has, without white space around it; nothing where it was not sent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |text| text.trim())
    }

    /// The same; `None` where it is empty.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Who waits for a password to be checked where nobody has proven who they are.
    pub(crate) fn stranger(&self) -> Requester {
        match self.client.address {
            Some(address) if !address.is_loopback() => Requester::Stranger(network(address)),
            _ => Requester::Loopback,
        }
    }

    /// A password, as it was typed.
    pub(crate) fn secret(&self, name: &str) -> SecretString {
        SecretString::from(self.fields.get(name).map_or("", String::as_str))
    }

    /// A request of `actor`, who has that role, under the form's key where it has one.
    pub(crate) fn request_of(&self, actor: Actor, role: Role) -> manager::Request {
        let key = self.given("key").and_then(|key| IdempotencyKey::parse(key).ok());
        manager::Request {
            id: self.request_id.clone(),
            key,
            address: self.client.address,
            ..manager::Request::by(actor, role)
        }
    }

    /// A request of the person who is signed in.
    pub(crate) fn asks(&self) -> Result<(Arc<Visitor>, manager::Request), Refusal> {
        let visitor = self.visitor.clone().ok_or_else(Refusal::unauthorized)?;
        let request = self.request_of(visitor.name.actor(), visitor.role);
        Ok((visitor, request))
    }
}

impl FromRequest<Shared> for Form {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Shared) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let limit = server.app.settings.body;
        let bytes = to_bytes(body, limit).await.map_err(|_| Refusal::too_large(limit))?;
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&bytes) {
            fields.insert(name.into_owned(), value.into_owned());
        }
        let visitor = parts.extensions.get::<Arc<Visitor>>().cloned();
        let brought = fields.get("csrf").map(|csrf| Sha256::digest(csrf.as_bytes()));
        if let Some(visitor) = &visitor
            && brought != Some(Sha256::digest(visitor.csrf.as_bytes()))
        {
            let detail = "the page is of another session; go back, reload it, and send it again";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "stale_form", detail));
        }
        Ok(Self {
            fields,
            visitor,
            client: Client::found(&parts.extensions),
            request_id: parts.extensions.get::<RequestId>().map(|id| id.0.clone()),
            headers: parts.headers,
        })
    }
}
