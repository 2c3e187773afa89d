//! What callers send, parsed at the door: bodies, query parameters, parts of paths, spans, cursors.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use cdm_core::domain::{Color, NameError, OperationId, SiteId};
use cdm_core::manager::Force;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::IntoParams;

use crate::app::Shared;
use crate::error::{FieldError, Refusal};

/// A JSON body; an absent one is an empty object.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Shared) -> Result<Self, Refusal> {
        let limit = server.app.settings.body;
        let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("").to_owned());
        let json = kind.as_deref().map(is_json);
        // A stranger's bytes are counted, not kept, once they are too many.
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|error| {
            let long =
                std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit"));
            if long { Refusal::too_large(limit) } else { Refusal::malformed("the body broke off") }
        })?;
        if json == Some(false) || (json.is_none() && !bytes.is_empty()) {
            return Err(Refusal::media_type());
        }
        parse(if bytes.is_empty() { b"{}" } else { &bytes }).map(Self)
    }
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => wrong(&path, &inner.to_string()),
            _ => Refusal::malformed(inner.to_string()),
        }
    })?;
    deserializer.end().map_err(|error| Refusal::malformed(error.to_string()))?;
    Ok(parsed)
}

/// A field of the wrong type, an unknown or a missing one.
fn wrong(path: &str, message: &str) -> Refusal {
    let named = message.split('`').nth(1).filter(|_| path == "." || path == "?");
    let message = message.split(" at line ").next().unwrap_or(message);
    if named.is_none() && path == "." {
        return Refusal::field("body", "the body is an object");
    }
    Refusal::field(named.unwrap_or(path), message)
}

/// The query parameters; unknown ones are refused, and so are repeated ones.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|_| Refusal::field("query", "the query cannot be read"))?;
        let mut map = Map::new();
        for (name, value) in pairs {
            if map.insert(name.clone(), Value::String(value)).is_some() {
                return Err(Refusal::field(&name, "the parameter is given twice"));
            }
        }
        let parsed = serde_path_to_error::deserialize(Value::Object(map));
        parsed.map(Self).map_err(|error| {
            let path = error.path().to_string();
            wrong(&path, &error.into_inner().to_string())
        })
    }
}

/// No query parameter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// How long to wait for the end.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// Waits so long for the operation to rest: a count of seconds, or a span such as `500ms`, `30s` or `1m`; at most 60 s.
    #[param(
        pattern = "^(([0-9]|[1-5][0-9]|60)s?|(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)ms|[01]m)$",
        nullable = false
    )]
    pub(crate) wait: Option<String>,
}

impl Wait {
    /// The span, where one is asked for.
    pub(crate) fn span(&self) -> Result<Option<Duration>, Refusal> {
        self.wait.as_deref().map(span).transpose()
    }
}

/// Whether the caller insists on a digest that is bad.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Forced {
    /// `true` repeats it also where its digest is bad.
    #[param(value_type = Option<bool>, nullable = false)]
    pub(crate) force: Option<String>,
}

impl Forced {
    /// What is said.
    pub(crate) fn force(&self) -> Result<Force, Refusal> {
        forced(self.force.as_deref())
    }
}

fn forced(text: Option<&str>) -> Result<Force, Refusal> {
    match text {
        None | Some("false") => Ok(Force::No),
        Some("true") => Ok(Force::Yes),
        Some(_) => Err(Refusal::field("force", "it is `true` or `false`")),
    }
}

/// How a retry is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Retry {
    /// Waits so long for the operation to rest: a count of seconds, or a span such as `500ms`, `30s` or `1m`; at most 60 s.
    #[param(
        pattern = "^(([0-9]|[1-5][0-9]|60)s?|(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)ms|[01]m)$",
        nullable = false
    )]
    pub(crate) wait: Option<String>,
    /// `true` repeats a deploy also where its digest is bad.
    #[param(value_type = Option<bool>, nullable = false)]
    pub(crate) force: Option<String>,
}

impl Retry {
    /// How long to wait, and whether the caller insists.
    pub(crate) fn parse(&self) -> Result<(Option<Duration>, Force), Refusal> {
        Ok((self.wait.as_deref().map(span).transpose()?, forced(self.force.as_deref())?))
    }
}

fn span(text: &str) -> Result<Duration, Refusal> {
    let digits = text.len() - text.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Some(1),
        "s" | "" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    let plain = number == "0" || !number.starts_with('0');
    let number = number.parse::<u64>().ok().filter(|_| plain);
    let millis = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let millis = millis.filter(|millis| *millis <= 60_000);
    let rule = "a wait is a count of seconds, or a span such as `500ms`, `30s` or `1m`; at most 60 s";
    millis.map(Duration::from_millis).ok_or_else(|| Refusal::field("wait", rule))
}

/// Collects what is wrong with several fields.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<FieldError>);

impl Fields {
    /// The value, unless it breaks a rule.
    pub(crate) fn take<T>(&mut self, field: &str, parsed: Result<T, NameError>) -> Option<T> {
        parsed.map_err(|broken| self.refuse(field, broken.rule())).ok()
    }

    pub(crate) fn refuse(&mut self, field: &str, message: &str) {
        self.0.push(FieldError { field: field.to_owned(), message: message.to_owned() });
    }

    /// Everything that was taken, or all that is wrong.
    pub(crate) fn end<T>(self, taken: Option<T>) -> Result<T, Refusal> {
        match taken {
            Some(taken) if self.0.is_empty() => Ok(taken),
            _ => Err(Refusal::fields(self.0)),
        }
    }
}

/// One field alone.
pub(crate) fn parsed<T>(field: &str, parsed: Result<T, NameError>) -> Result<T, Refusal> {
    parsed.map_err(|broken| Refusal::field(field, broken.rule()))
}

/// A part of a path that names something.
pub(crate) trait Named: Sized + Send {
    /// Parses it.
    fn named(text: &str) -> Result<Self, Refusal>;
}

impl Named for SiteId {
    fn named(text: &str) -> Result<Self, Refusal> {
        parsed("id", Self::parse(text))
    }
}

impl Named for Color {
    fn named(text: &str) -> Result<Self, Refusal> {
        parsed("selector", Self::parse(text))
    }
}

impl Named for OperationId {
    fn named(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).ok_or_else(|| Refusal::not_found("the operation"))
    }
}

/// The part of the path.
#[derive(Debug)]
pub(crate) struct Part<T>(pub(crate) T);

impl<T: Named, S: Send + Sync> FromRequestParts<S> for Part<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|_| Refusal::not_found("what the path names"))?;
        T::named(&text).map(Self)
    }
}

/// How many items a page has, and where it begins.
#[derive(Debug)]
pub(crate) struct Paging {
    pub(crate) limit: usize,
    pub(crate) after: Option<String>,
}

impl Paging {
    /// Judges `?limit=&cursor=` of the list that `list` names: a cursor of another list is refused.
    pub(crate) fn new(list: char, limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Refusal> {
        let count = limit.map(|limit| {
            let digits = limit.bytes().all(|byte| byte.is_ascii_digit()) && !limit.starts_with('0');
            limit.parse::<usize>().ok().filter(|limit| digits && (1..=1_000).contains(limit))
        });
        let count =
            count.unwrap_or(Some(100)).ok_or_else(|| Refusal::field("limit", "a limit is from 1 to 1000"))?;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let text = unhex(cursor).and_then(|text| text.strip_prefix(list).map(str::to_owned));
                let rule = "a cursor is what an earlier page of the same list said in `next`";
                Some(text.ok_or_else(|| Refusal::field("cursor", rule))?)
            }
        };
        Ok(Self { limit: count, after })
    }

    /// Where the page begins, as what the list is ordered by.
    pub(crate) fn position<T: std::str::FromStr>(&self) -> Result<Option<T>, Refusal> {
        let wrong =
            |_| Refusal::field("cursor", "a cursor is what an earlier page of the same list said in `next`");
        self.after.as_deref().map(str::parse).transpose().map_err(wrong)
    }
}

/// The cursor of a list's next page.
pub(crate) fn cursor(list: char, position: impl std::fmt::Display) -> String {
    hex(&format!("{list}{position}"))
}

/// Text that goes into an address or a cookie as it is.
pub(crate) fn hex(text: &str) -> String {
    hex_bytes(text.as_bytes())
}

/// Bytes as such text.
pub(crate) fn hex_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text again.
pub(crate) fn unhex(text: &str) -> Option<String> {
    String::from_utf8(unhex_bytes(text)?).ok()
}

/// The bytes that hexadecimal text stands for.
pub(crate) fn unhex_bytes(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let even = text.len().is_multiple_of(2) && text.len() <= 1_024;
    text.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>().filter(|_| even)
}
