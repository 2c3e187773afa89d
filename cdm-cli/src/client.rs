//! Requests that every command makes: ask, judge the status, read the JSON, follow cursors.

use serde_json::Value;

use crate::args::Paging;
use crate::error::{CliError, Problem};
use crate::printer::More;
use crate::transport::{Method, Request, Response, Transport};

/// The most that one page may hold.
const PAGE: u64 = 500;

/// The API, with this command's key.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The way to it.
    pub transport: &'a dyn Transport,
    /// The key of the request that changes something.
    pub key: Option<&'a str>,
}

/// An answer of success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 202 when the work goes on.
    pub status: u16,
    /// What it says.
    pub value: Value,
}

impl Client<'_> {
    /// Reads.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        let request = Request { path: path.to_owned(), ..Request::default() };
        Ok(json(self.transport.send(request).await?)?.value)
    }

    /// Reads text.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn text(&self, path: &str) -> Result<Vec<u8>, CliError> {
        let request = Request { path: path.to_owned(), ..Request::default() };
        Ok(accepted(self.transport.send(request).await?)?.body)
    }

    /// Changes something.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn change(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, CliError> {
        let headers = self.key.iter().map(|key| ("idempotency-key", (*key).to_owned())).collect();
        let request = Request { method, path: path.to_owned(), body, headers, query: Vec::new() };
        json(self.transport.send(request).await?)
    }

    /// Reads a list that comes whole, and keeps as much of it as is wanted.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn short_list(&self, path: &str, paging: Paging) -> Result<(Vec<Value>, More), CliError> {
        Ok(cut(items(self.get(path).await?)?, paging, More::None))
    }

    /// Reads a list, page by page.
    ///
    /// # Errors
    /// When the server does not answer, or refuses; also when a cursor leads back to itself.
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
            let wanted = if paging.all { PAGE } else { (paging.limit - have).min(PAGE) };
            let given =
                filters.iter().filter_map(|(key, value)| Some(((*key).to_owned(), (*value)?.to_owned())));
            let mut query: Vec<_> = given.collect();
            query.push(("limit".into(), wanted.to_string()));
            query.extend(cursor.iter().map(|cursor| ("cursor".to_owned(), cursor.clone())));
            let request = Request { path: path.to_owned(), query, ..Request::default() };
            let page = json(self.transport.send(request).await?)?.value;
            let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
            all.extend(items(page)?);
            let Some(next) = next else { return Ok(cut(all, paging, More::None)) };
            if !paging.all && all.len() as u64 >= paging.limit {
                return Ok(cut(all, paging, More::Left));
            }
            if cursor.as_ref() == Some(&next) {
                return Err(CliError::Answer("the same cursor twice".into()));
            }
            cursor = Some(next);
        }
    }
}

/// The items of a part of a list.
///
/// # Errors
/// When it is none.
pub(crate) fn items(mut answer: Value) -> Result<Vec<Value>, CliError> {
    match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(CliError::Answer("a list without `items`".into())),
    }
}

fn cut(mut items: Vec<Value>, paging: Paging, more: More) -> (Vec<Value>, More) {
    let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    if paging.all || items.len() <= limit {
        return (items, more);
    }
    items.truncate(limit);
    (items, More::Left)
}

/// The response, if it is one of success.
///
/// # Errors
/// When it is a refusal, or leads elsewhere.
pub(crate) fn accepted(response: Response) -> Result<Response, CliError> {
    match response.status {
        200..=299 => Ok(response),
        300..=399 => Err(match response.header("location") {
            Some(target) => CliError::Redirected { target: target.to_owned() },
            None => CliError::Answer(format!("it leads elsewhere ({})", response.status)),
        }),
        _ => Err(CliError::Refused(Box::new(Problem::of(&response)))),
    }
}

fn json(response: Response) -> Result<Answer, CliError> {
    let response = accepted(response)?;
    let value = match response.body.as_slice() {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(|_| CliError::Answer("no JSON".into()))?,
    };
    Ok(Answer { status: response.status, value })
}
