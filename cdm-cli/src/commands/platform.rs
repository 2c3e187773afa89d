//! `cdm token …`, `cdm audit`, `cdm events` and `cdm doctor`.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::Session;
use crate::args::{AuditArgs, Format, TokenCommand};
use crate::client::accepted;
use crate::error::CliError;
use crate::exit::Exit;
use crate::hints;
use crate::transport::{Listening, Method, Request, segment};
use crate::view::{Shape, frozen, plain};

pub(super) async fn token(command: TokenCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        TokenCommand::Create { name, role, expires_at, expires_in, no_expiry } => {
            let mut body = json!({ "name": name, "role": role });
            let ends = match (expires_at, expires_in) {
                (Some(at), _) => Some(at),
                (None, Some(span)) => Some(after(session, span)?),
                (None, None) => no_expiry.then(|| "never".to_owned()),
            };
            if let Some(ends) = ends {
                body["expiresAt"] = ends.into();
            }
            let answer = session.client().change(Method::Post, "/tokens", Some(body)).await?;
            match (session.printer.format, answer.value.get("token").and_then(Value::as_str)) {
                (Format::Table, Some(token)) => {
                    let part = |key: &str| answer.value.get(key).map(plain).unwrap_or_default();
                    session.printer.note(&format!(
                        "token `{}` ({}, id {}); it is shown this once:",
                        part("name"),
                        part("role"),
                        part("id")
                    ));
                    session.printer.text(&format!("{token}\n"))?;
                }
                (Format::Table | Format::Json | Format::Yaml, _) => {
                    session.printer.value(Shape::Token, &answer.value)?;
                }
            }
            Ok(Exit::Done)
        }
        TokenCommand::List { paging } => {
            let (items, more) = session.client().list("/tokens", &[], paging).await?;
            session.printer.list(Shape::Token, &items, more)?;
            Ok(Exit::Done)
        }
        TokenCommand::Revoke { id } => {
            let answer =
                session.client().change(Method::Delete, &format!("/tokens/{}", segment(&id)), None).await?;
            if !answer.value.is_null() {
                session.printer.value(Shape::Token, &answer.value)?;
            }
            session.printer.note(&format!("token `{id}` is revoked"));
            Ok(Exit::Done)
        }
    }
}

pub(super) fn after(session: &Session<'_>, span: std::time::Duration) -> Result<String, CliError> {
    let end = u128::from(session.printer.now().millis()) + span.as_millis();
    i64::try_from(end)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map(|at| at.to_string())
        .ok_or_else(|| CliError::Usage("that is too far ahead".into()))
}

pub(super) async fn audit(args: AuditArgs, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let filters =
        [("actor", args.actor.as_deref()), ("site", args.site.as_deref()), ("since", args.since.as_deref())];
    let (items, more) = session.client().list("/audit", &filters, args.paging).await?;
    session.printer.list(Shape::Audit, &items, more)?;
    Ok(Exit::Done)
}

/// Prints events until Ctrl-C, over as many connections as it takes; a second one in a row without any event is the end.
pub(super) async fn events(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let mut last_id: Option<String> = None;
    loop {
        let listening = session.client().transport.events("/events", last_id.as_deref()).await?;
        let mut events = match listening {
            Listening::Open(events) => events,
            Listening::Refused(response) => {
                accepted(response)?;
                return Err(CliError::Answer("no events".into()));
            }
        };
        let mut heard = 0_u64;
        let broken = loop {
            match events.next().await {
                Some(Ok(event)) => {
                    heard += 1;
                    last_id = event.id.or(last_id);
                    if event.data.is_empty() {
                        continue;
                    }
                    let value = serde_json::from_str(&event.data)
                        .unwrap_or_else(|_| json!({ "what": event.event, "data": event.data }));
                    session.printer.event(&value)?;
                }
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        match (heard, broken) {
            (0, Some(error)) => return Err(error.into()),
            (0, None) => return Ok(Exit::Done),
            (_, _) => {}
        }
    }
}

/// Asks whether the server is ready, backend by backend, and then whether it takes the token.
pub(super) async fn doctor(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let client = session.client();
    let ready = client.transport.send(Request { path: "/readyz".into(), ..Request::default() }).await?;
    let is_ready = (200..300).contains(&ready.status);
    let told: Value = serde_json::from_slice(&ready.body).unwrap_or(Value::Null);
    let backends = told.get("backends").filter(|backends| backends.is_array());
    let (true, Some(backends)) = (is_ready || ready.status == 503, backends) else {
        accepted(ready)?;
        return Err(CliError::Answer("its readiness".into()));
    };
    let token = client.get("/services").await;
    let report = json!({
        "server": told.get("status"),
        "backends": backends,
        "token": match &token { Ok(_) => "accepted".to_owned(), Err(error) => error.to_string() },
    });
    session.printer.value(Shape::Health, &report)?;
    match token {
        // A server that is not ready may not be able to judge a token.
        _ if !is_ready => Ok(Exit::Unreachable),
        Ok(services) => {
            for freeze in services.get("freezes").and_then(Value::as_array).into_iter().flatten() {
                session.printer.note(&frozen(freeze));
            }
            Ok(Exit::Done)
        }
        Err(error) => {
            if let Some(hint) = hints::for_error(&error, &session.printer.way) {
                session.printer.hint(&hint);
            }
            Ok(Exit::from(&error))
        }
    }
}
