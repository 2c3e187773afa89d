//! Requests that every command uses: send, check the status, parse the JSON, follow cursors.

use serde_json::Value;

use crate::args::Paging;
use crate::error::{CliError, Problem};
use crate::printer::More;
use crate::transport::{Method, Request, Response, Transport};

/// Maximum number of items to request per page.
const MAX_PAGE: u64 = 500;

/// The API, with the idempotency key of one command.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Sends the requests.
    pub transport: &'a dyn Transport,
    /// Idempotency key for the request that changes something; `None` to send no key.
    pub key: Option<&'a str>,
}

/// A successful response.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// HTTP status; 202 if the work continues after the response.
    pub status: u16,
    /// Parsed body; `null` if the body is empty.
    pub value: Value,
}

impl Client<'_> {
    /// Sends a GET request and returns the parsed body.
    ///
    /// # Errors
    /// When the server does not respond, or rejects the request.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        let request = Request { path: path.to_owned(), ..Request::default() };
        Ok(json(self.transport.send(request).await?)?.value)
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
    pub async fn short_list(&self, path: &str, paging: Paging) -> Result<(Vec<Value>, More), CliError> {
        Ok(truncate(items(self.get(path).await?)?, paging, More::None))
    }

    /// Reads a list, page by page, up to the limit of `paging`.
    ///
    /// # Errors
    /// When the server does not respond, rejects the request, or returns a cursor that leads back to the same page.
    pub async fn list(
        &self,
        path: &str,
        filters: &[(&str, Option<&str>)],
        paging: Paging,
    ) -> Result<(Vec<Value>, More), CliError> {
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
            let page = json(self.transport.send(request).await?)?.value;
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
/// When the value has no array `items`.
pub(crate) fn items(mut response: Value) -> Result<Vec<Value>, CliError> {
    match response.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(CliError::InvalidResponse("the list has no `items`".into())),
    }
}

fn truncate(mut items: Vec<Value>, paging: Paging, more: More) -> (Vec<Value>, More) {
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
    let value = match response.body.as_slice() {
        [] => Value::Null,
        body => serde_json::from_slice(body)
            .map_err(|_| CliError::InvalidResponse("the body is not JSON".into()))?,
    };
    Ok(ApiResponse { status: response.status, value })
}
