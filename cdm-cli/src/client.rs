//! Requests that every command uses: send, check the status, parse the JSON, follow cursors.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Paging;
use crate::error::{CliError, Problem};
use crate::transport::{Method, Request, Response, Transport};

/// Maximum number of items to request per page.
const MAX_PAGE: u64 = 500;

/// The API, with the idempotency key of one command.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The connection to a server, or the API in this process.
    pub transport: &'a dyn Transport,
    /// Idempotency key for the request that changes something; `None` to send no key.
    pub key: Option<&'a str>,
}

/// An object that the server sent.
#[derive(Clone, Debug)]
pub struct Received<T> {
    /// The object as the server sent it, for `-o json` and `-o yaml`. A newer server may send more fields.
    pub json: Value,
    /// The typed object, for tables and decisions.
    pub value: T,
}

impl<T: DeserializeOwned> Received<T> {
    /// Parses an object.
    ///
    /// # Errors
    /// When a field is missing or has another type.
    pub fn parse(json: Value) -> Result<Self, CliError> {
        match T::deserialize(&json) {
            Ok(value) => Ok(Self { json, value }),
            Err(error) => Err(CliError::InvalidResponse(error.to_string())),
        }
    }
}

impl<T: Serialize> Received<T> {
    /// Returns an object of this command, in place of a response.
    pub(crate) fn local(value: T) -> Result<Self, CliError> {
        Ok(Self { json: body(&value)?, value })
    }
}

/// Returns the JSON of a request.
///
/// # Errors
/// When the value has no JSON form.
pub fn body(value: &impl Serialize) -> Result<Value, CliError> {
    serde_json::to_value(value)
        .map_err(|error| CliError::Failed(format!("cannot write the request: {error}")))
}

/// Whether a list has further items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There are further items.
    Remaining,
    /// The list is complete.
    None,
}

/// A response with a status of 2xx; any other status is an error.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// HTTP status; 202 if the work continues after the response.
    pub status: u16,
    /// Parsed body; `null` if the body is empty.
    pub json: Value,
}

impl ApiResponse {
    /// Returns the object in the body.
    ///
    /// # Errors
    /// When the body has another form.
    pub fn parse<T: DeserializeOwned>(self) -> Result<Received<T>, CliError> {
        Received::parse(self.json)
    }
}

impl Client<'_> {
    /// Sends a GET request and returns the object in the body.
    ///
    /// # Errors
    /// When the server does not respond, rejects the request, or sends another object.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Received<T>, CliError> {
        let request = Request { path: path.to_owned(), ..Request::default() };
        json(self.transport.send(request).await?)?.parse()
    }

    /// Sends a GET request and returns the body as it is.
    ///
    /// # Errors
    /// When the server does not respond, or rejects the request.
    pub async fn text(&self, path: &str) -> Result<Vec<u8>, CliError> {
        let request = Request { path: path.to_owned(), ..Request::default() };
        Ok(require_success(self.transport.send(request).await?)?.body)
    }

    /// Sends a request that changes something, with the idempotency key if there is one.
    ///
    /// # Errors
    /// When the server does not respond, or rejects the request.
    pub async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<ApiResponse, CliError> {
        let headers = self.key.iter().map(|key| ("idempotency-key", (*key).to_owned())).collect();
        let request = Request { method, path: path.to_owned(), body, headers, query: Vec::new() };
        json(self.transport.send(request).await?)
    }

    /// Reads a list that the API returns as one page, and truncates it to the limit of `paging`.
    ///
    /// # Errors
    /// When the server does not respond, or rejects the request.
    pub async fn short_list<T: DeserializeOwned>(
        &self,
        path: &str,
        paging: Paging,
    ) -> Result<(Vec<Received<T>>, More), CliError> {
        Ok(truncate(items(self.get::<Value>(path).await?.json)?, paging, More::None))
    }

    /// Reads a list, page by page, up to the limit of `paging`.
    ///
    /// # Errors
    /// When the server does not respond, rejects the request, or returns a cursor that leads back to the same page.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        filters: &[(&str, Option<&str>)],
        paging: Paging,
    ) -> Result<(Vec<Received<T>>, More), CliError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let have = all.len() as u64;
            let wanted = if paging.all { MAX_PAGE } else { (paging.limit - have).min(MAX_PAGE) };
            let given =
                filters.iter().filter_map(|(key, value)| Some(((*key).to_owned(), (*value)?.to_owned())));
            let mut query: Vec<_> = given.collect();
            query.push(("limit".into(), wanted.to_string()));
            query.extend(cursor.iter().map(|cursor| ("cursor".to_owned(), cursor.clone())));
            let request = Request { path: path.to_owned(), query, ..Request::default() };
            let page = json(self.transport.send(request).await?)?.json;
            let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
            all.extend(items(page)?);
            let Some(next) = next else { return Ok(truncate(all, paging, More::None)) };
            if !paging.all && all.len() as u64 >= paging.limit {
                return Ok(truncate(all, paging, More::Remaining));
            }
            if cursor.as_ref() == Some(&next) {
                return Err(CliError::InvalidResponse("the list returned the same cursor twice".into()));
            }
            cursor = Some(next);
        }
    }
}

/// Returns the items of a page.
///
/// # Errors
/// When the value has no array `items`, or an item has another form.
pub(crate) fn items<T: DeserializeOwned>(mut response: Value) -> Result<Vec<Received<T>>, CliError> {
    match response.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items.into_iter().map(Received::parse).collect(),
        _ => Err(CliError::InvalidResponse("the list has no `items`".into())),
    }
}

fn truncate<T>(mut items: Vec<T>, paging: Paging, more: More) -> (Vec<T>, More) {
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    if paging.all || items.len() <= limit {
        return (items, more);
    }
    items.truncate(limit);
    (items, More::Remaining)
}

/// Returns the response if its status is a success.
///
/// # Errors
/// When the status is an error or a redirect.
pub(crate) fn require_success(response: Response) -> Result<Response, CliError> {
    match response.status {
        200..=299 => Ok(response),
        300..=399 => Err(match response.header("location") {
            Some(target) => CliError::Redirected { target: target.to_owned() },
            None => {
                CliError::InvalidResponse(format!("a redirect (status {}) without a target", response.status))
            }
        }),
        _ => Err(CliError::Rejected(Box::new(Problem::of(&response)))),
    }
}

fn json(response: Response) -> Result<ApiResponse, CliError> {
    let response = require_success(response)?;
    let json = match response.body.as_slice() {
        [] => Value::Null,
        body => serde_json::from_slice(body)
            .map_err(|_| CliError::InvalidResponse("the body is not JSON".into()))?,
    };
    Ok(ApiResponse { status: response.status, json })
}
