//! Extractors and parsers for request data: JSON bodies, query parameters, path segments, durations and cursors.

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

use crate::api::{FreezeId, RolloutId, WebhookId};
use crate::app::SharedState;
use crate::error::ApiError;

/// Extracts a JSON body; an empty body counts as an empty object.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<SharedState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &SharedState) -> Result<Self, ApiError> {
        let limit = server.app.settings.body;
        let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("").to_owned());
        let json = kind.as_deref().map(is_json);
        // Stops to read, and drops the data, as soon as the body exceeds the limit.
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|error| {
            let too_large =
                std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit"));
            if too_large {
                ApiError::too_large(limit)
            } else {
                ApiError::malformed("the request body is incomplete")
            }
        })?;
        if json == Some(false) || (json.is_none() && !bytes.is_empty()) {
            return Err(ApiError::media_type());
        }
        parse(if bytes.is_empty() { b"{}" } else { &bytes }).map(Self)
    }
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => invalid_data(&path, &inner.to_string()),
            _ => ApiError::malformed(inner.to_string()),
        }
    })?;
    deserializer.end().map_err(|error| ApiError::malformed(error.to_string()))?;
    Ok(parsed)
}

/// Returns the error for a field that has the wrong type, is unknown or is missing.
fn invalid_data(path: &str, message: &str) -> ApiError {
    let named = message.split('`').nth(1).filter(|_| path == "." || path == "?");
    let message = message.split(" at line ").next().unwrap_or(message);
    if named.is_none() && path == "." {
        return ApiError::field("body", "the body must be a JSON object");
    }
    ApiError::field(named.unwrap_or(path), message)
}

/// Extracts the query parameters; rejects unknown and repeated parameters.
#[derive(Debug)]
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|_| ApiError::field("query", "the query string is malformed"))?;
        let mut map = Map::new();
        for (name, value) in pairs {
            if map.insert(name.clone(), Value::String(value)).is_some() {
                return Err(ApiError::field(&name, "the parameter must not be repeated"));
            }
        }
        let parsed = serde_path_to_error::deserialize(Value::Object(map));
        parsed.map(Self).map_err(|error| {
            let path = error.path().to_string();
            invalid_data(&path, &error.into_inner().to_string())
        })
    }
}

/// Rejects all query parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// The query parameters of a route that can wait for its operation.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParam {
    /// Waits until the operation ends or is parked, for at most this time: a number of seconds, or a duration such as
    /// `500ms`, `30s` or `1m`; at most 60 s.
    #[param(
        pattern = "^(([0-9]|[1-5][0-9]|60)s?|(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)ms|[01]m)$",
        nullable = false
    )]
    pub(crate) wait: Option<String>,
}

impl WaitParam {
    /// Returns the time to wait; `None` without the parameter.
    pub(crate) fn duration(&self) -> Result<Option<Duration>, ApiError> {
        self.wait.as_deref().map(parse_wait).transpose()
    }
}

/// The query parameters of the retry of a rollout.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForceParam {
    /// With `true`, the rollout is retried even if its digest is marked bad.
    #[param(value_type = Option<bool>, nullable = false)]
    pub(crate) force: Option<String>,
}

impl ForceParam {
    /// Returns the parsed parameter; [`Force::No`] without it.
    pub(crate) fn force(&self) -> Result<Force, ApiError> {
        parse_force(self.force.as_deref())
    }
}

fn parse_force(text: Option<&str>) -> Result<Force, ApiError> {
    match text {
        None | Some("false") => Ok(Force::No),
        Some("true") => Ok(Force::Yes),
        Some(_) => Err(ApiError::field("force", "the value must be `true` or `false`")),
    }
}

/// The query parameters of the retry of an operation.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RetryParams {
    /// Waits until the operation ends or is parked, for at most this time: a number of seconds, or a duration such as
    /// `500ms`, `30s` or `1m`; at most 60 s.
    #[param(
        pattern = "^(([0-9]|[1-5][0-9]|60)s?|(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)ms|[01]m)$",
        nullable = false
    )]
    pub(crate) wait: Option<String>,
    /// With `true`, a deploy is retried even if its digest is marked bad.
    #[param(value_type = Option<bool>, nullable = false)]
    pub(crate) force: Option<String>,
}

impl RetryParams {
    /// Returns the time to wait, and whether the retry is forced.
    pub(crate) fn parse(&self) -> Result<(Option<Duration>, Force), ApiError> {
        Ok((self.wait.as_deref().map(parse_wait).transpose()?, parse_force(self.force.as_deref())?))
    }
}

fn parse_wait(text: &str) -> Result<Duration, ApiError> {
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
    let rule =
        "the wait must be a number of seconds, or a duration such as `500ms`, `30s` or `1m`; at most 60 s";
    millis.map(Duration::from_millis).ok_or_else(|| ApiError::field("wait", rule))
}

/// Converts the result of parsing one field.
pub(crate) fn parse_field<T>(field: &str, parsed: Result<T, NameError>) -> Result<T, ApiError> {
    parsed.map_err(|broken| ApiError::field(field, broken.rule()))
}

/// A value that a path segment contains, such as an id.
pub(crate) trait PathSegment: Sized + Send {
    /// Parses a percent-decoded path segment.
    fn from_segment(text: &str) -> Result<Self, ApiError>;
}

impl PathSegment for SiteId {
    fn from_segment(text: &str) -> Result<Self, ApiError> {
        parse_field("id", Self::parse(text))
    }
}

impl PathSegment for Color {
    fn from_segment(text: &str) -> Result<Self, ApiError> {
        parse_field("selector", Self::parse(text))
    }
}

impl PathSegment for OperationId {
    fn from_segment(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).ok_or_else(|| ApiError::not_found("the operation"))
    }
}

/// The number in the id of a rollout, freeze or webhook in a path.
#[derive(Debug)]
pub(crate) struct Numbered<T> {
    pub(crate) id: T,
    pub(crate) number: u64,
}

macro_rules! numbered_segments {
    ($($id:ty: $name:literal;)+) => {$(
        impl PathSegment for Numbered<$id> {
            fn from_segment(text: &str) -> Result<Self, ApiError> {
                let id = <$id>::from(text);
                let number = id.number().ok_or_else(|| ApiError::not_found($name))?;
                Ok(Self { id, number })
            }
        }
    )+};
}

numbered_segments! {
    RolloutId: "the rollout";
    FreezeId: "the freeze";
    WebhookId: "the webhook";
}

/// Extracts the only parameter of the route's path.
#[derive(Debug)]
pub(crate) struct PathParam<T>(pub(crate) T);

impl<T: PathSegment, S: Send + Sync> FromRequestParts<S> for PathParam<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|_| ApiError::not_found("the object in the path"))?;
        T::from_segment(&text).map(Self)
    }
}

const CURSOR_RULE: &str = "the cursor must be the `next` of an earlier page of the same list";

/// The size and the start of a page of a list.
#[derive(Debug)]
pub(crate) struct Paging {
    pub(crate) limit: usize,
    pub(crate) after: Option<String>,
}

impl Paging {
    /// Parses `?limit=&cursor=`. The letter `list` identifies the list; a cursor of another list is rejected.
    pub(crate) fn new(list: char, limit: Option<&str>, cursor: Option<&str>) -> Result<Self, ApiError> {
        let count = limit.map(|limit| {
            let digits = limit.bytes().all(|byte| byte.is_ascii_digit()) && !limit.starts_with('0');
            limit.parse::<usize>().ok().filter(|limit| digits && (1..=1_000).contains(limit))
        });
        let count = count
            .unwrap_or(Some(100))
            .ok_or_else(|| ApiError::field("limit", "the limit must be from 1 to 1000"))?;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let text = unhex(cursor).and_then(|text| text.strip_prefix(list).map(str::to_owned));
                Some(text.ok_or_else(|| ApiError::field("cursor", CURSOR_RULE))?)
            }
        };
        Ok(Self { limit: count, after })
    }

    /// Returns the position after which the page starts, in the sort key of the list.
    pub(crate) fn position<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        let invalid = |_| ApiError::field("cursor", CURSOR_RULE);
        self.after.as_deref().map(str::parse).transpose().map_err(invalid)
    }
}

/// Returns the cursor of the next page of a list.
pub(crate) fn cursor(list: char, position: impl std::fmt::Display) -> String {
    hex::encode(format!("{list}{position}"))
}

/// Decodes text from hexadecimal digits, which need no escaping in a URL or a cookie; `None` if they are not valid.
pub(crate) fn unhex(text: &str) -> Option<String> {
    String::from_utf8(unhex_bytes(text)?).ok()
}

/// Decodes hexadecimal text of at most 1,024 digits; `None` if it is not valid.
pub(crate) fn unhex_bytes(text: &str) -> Option<Vec<u8>> {
    if text.len() <= 1_024 { hex::decode(text).ok() } else { None }
}
