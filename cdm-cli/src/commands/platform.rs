//! `cdm token …`, `cdm audit`, `cdm events` and `cdm doctor`.

use std::sync::Arc;

use cdm_core::domain::MonotonicTime;
use cdm_http::api::audit::AuditEntry;
use cdm_http::api::health::Ready;
use cdm_http::api::services::Services;
use cdm_http::api::token::{CreateToken, MadeToken, Role, Token};
use futures_util::StreamExt;
use serde_json::json;

use super::Session;
use crate::args::{AuditArgs, Format, TokenCommand};
use crate::client::{Received, body, require_success};
use crate::error::CliError;
use crate::exit::Exit;
use crate::hints;
use crate::text::clean;
use crate::transport::{EventStream, Method, Request, segment};
use crate::view::{Health, describe_freeze};
use crate::wait::pause_after;

pub(super) async fn token(command: TokenCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        TokenCommand::Create { name, role, expires_at, expires_in, no_expiry } => {
            let expires_at = match (expires_at, expires_in) {
                (Some(at), _) => Some(at),
                (None, Some(span)) => Some(after(session, span)?),
                (None, None) => no_expiry.then(|| "never".to_owned()),
            };
            let request = CreateToken { name, role: Role::from(role.as_str()), expires_at };
            let response = session.client().change(Method::Post, "/tokens", Some(body(&request)?)).await?;
            let made = response.parse::<MadeToken>()?;
            match session.printer.format {
                Format::Table => {
                    let Token { name, role, id, .. } = &made.value.record;
                    session.printer.note(&format!(
                        "token `{}` ({}, id {}), shown only once:",
                        clean(name),
                        clean(role.as_str()),
                        clean(id.as_str())
                    ));
                    session.printer.text(&format!("{}\n", made.value.token))?;
                }
                Format::Json | Format::Yaml => session.printer.value(&made)?,
            }
            Ok(Exit::Done)
        }
        TokenCommand::List { paging } => {
            let (items, more) = session.client().list::<Token>("/tokens", &[], paging).await?;
            session.printer.list(&items, more)?;
            Ok(Exit::Done)
        }
        TokenCommand::Revoke { id } => {
            let response =
                session.client().change(Method::Delete, &format!("/tokens/{}", segment(&id)), None).await?;
            session.printer.value(&response.parse::<Token>()?)?;
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
        .ok_or_else(|| CliError::Usage("the time is too far in the future".into()))
}

pub(super) async fn audit(args: AuditArgs, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let filters =
        [("actor", args.actor.as_deref()), ("site", args.site.as_deref()), ("since", args.since.as_deref())];
    let (items, more) = session.client().list::<AuditEntry>("/audit", &filters, args.paging).await?;
    session.printer.list(&items, more)?;
    Ok(Exit::Done)
}

/// Prints events until Ctrl-C, over as many connections as necessary. If the server restarts, the command reconnects
/// for up to `--timeout` each time, and the stream resumes after the last event that was printed. If the server does
/// not respond to the first request, the command fails.
pub(super) async fn events(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let clock = Arc::clone(&session.wait.clock);
    let mut last_id: Option<String> = None;
    // When the present outage began, and the number of attempts since then.
    let mut outage: Option<(MonotonicTime, u32)> = None;
    let mut connected = false;
    loop {
        let error = match session.client().transport.events("/events", last_id.as_deref()).await {
            Ok(EventStream::Open(mut events)) => {
                connected = true;
                loop {
                    match events.next().await {
                        Some(Ok(event)) => {
                            if outage.take().is_some_and(|(_, tries)| tries > 1) {
                                session.printer.note("the server responds again");
                            }
                            last_id = event.id.or(last_id);
                            if event.data.is_empty() {
                                continue;
                            }
                            let value = serde_json::from_str(&event.data)
                                .unwrap_or_else(|_| json!({ "what": event.event, "data": event.data }));
                            session.printer.event(&value)?;
                        }
                        Some(Err(error)) => break CliError::from(error),
                        None => break CliError::InvalidResponse("the event stream ended".into()),
                    }
                }
            }
            Ok(EventStream::Rejected(response)) => match require_success(response) {
                Ok(_) => return Err(CliError::InvalidResponse("the response is not an event stream".into())),
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        let retryable =
            matches!(error, CliError::InvalidResponse(_)) || Exit::from(&error) == Exit::Unreachable;
        if !retryable || !connected {
            return Err(error);
        }
        let now = clock.monotonic();
        let (since, tries) = outage.unwrap_or((now, 0));
        if now.since(since) >= session.wait.timeout {
            return Err(error);
        }
        if tries == 1 {
            session.printer.note("the server does not respond; the events resume when it does");
        }
        outage = Some((since, tries + 1));
        clock.sleep_until(now.after(pause_after(tries))).await;
    }
}

/// Checks whether the server is ready, backend by backend, and whether it accepts the token.
pub(super) async fn doctor(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let client = session.client();
    let ready = client.transport.send(Request { path: "/readyz".into(), ..Request::default() }).await?;
    let is_ready = (200..300).contains(&ready.status);
    let readiness = serde_json::from_slice::<Ready>(&ready.body).ok();
    let (true, Some(readiness)) = (is_ready || ready.status == 503, readiness) else {
        require_success(ready)?;
        return Err(CliError::InvalidResponse("the readiness report has no `backends`".into()));
    };
    let token = client.get::<Services>("/services").await;
    let report = Health {
        server: readiness.status,
        backends: readiness.backends,
        token: match &token {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    session.printer.value(&Received::local(report)?)?;
    match token {
        // A server that is not ready may be unable to check a token.
        _ if !is_ready => Ok(Exit::Unreachable),
        Ok(services) => {
            for freeze in &services.value.freezes {
                session.printer.note(&describe_freeze(freeze));
            }
            Ok(Exit::Done)
        }
        Err(error) => {
            if let Some(hint) = hints::for_error(&error, &session.printer.invocation) {
                session.printer.hint(&hint);
            }
            Ok(Exit::from(&error))
        }
    }
}
