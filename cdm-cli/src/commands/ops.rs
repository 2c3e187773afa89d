//! `cdm op …` and `cdm rollout …`.

use serde_json::json;

use super::Session;
use crate::args::{Format, OpCommand, RolloutCommand};
use crate::error::{CliError, Subject};
use crate::exit::Exit;
use crate::transport::{Method, segment};
use crate::view::Shape;
use crate::wait::{EmitMode, Goal};

pub(super) async fn operation(command: OpCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let path = |id: &str| Subject::operation(id).path();
    match command {
        OpCommand::List { site, kind, status, rollout, paging } => {
            let filters = [
                ("site", site.as_deref()),
                ("kind", kind.as_deref()),
                ("status", status.as_deref()),
                ("rollout", rollout.as_deref()),
            ];
            let (items, more) = session.client().list("/operations", &filters, paging).await?;
            session.printer.list(Shape::Operation, &items, more)?;
            Ok(Exit::Done)
        }
        OpCommand::Get { id } => session.show(Shape::Operation, &path(&id)).await,
        OpCommand::Watch { id } => {
            let first = session.client().get(&path(&id)).await?;
            session.watch(Subject::operation(id), first, Goal::Success).await
        }
        OpCommand::Log { id, step } => {
            let log = session.client().text(&format!("{}/steps/{}/log", path(&id), segment(&step))).await?;
            match session.printer.format {
                Format::Table if log.is_empty() => {
                    session.printer.note(&format!("step `{step}` has no output"));
                }
                Format::Table => session.printer.bytes(&log)?,
                Format::Json | Format::Yaml => {
                    let log = String::from_utf8_lossy(&log);
                    let report = json!({ "operation": id, "step": step, "log": log });
                    session.printer.value(Shape::Done, &report)?;
                }
            }
            Ok(Exit::Done)
        }
        OpCommand::Retry { id, force } => {
            let retry = format!("{}/retry{}", path(&id), retry_query(force));
            session.submit(Method::Post, &retry, None, Goal::Success).await
        }
        OpCommand::Cancel { id } => {
            session.submit(Method::Post, &format!("{}/cancel", path(&id)), None, Goal::End).await
        }
    }
}

pub(super) async fn rollout(command: RolloutCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let path = |id: &str| Subject::rollout(id).path();
    match command {
        RolloutCommand::List { paging } => {
            let (items, more) = session.client().list("/rollouts", &[], paging).await?;
            session.printer.list(Shape::Rollout, &items, more)?;
            Ok(Exit::Done)
        }
        RolloutCommand::Get { id } => session.show(Shape::Rollout, &path(&id)).await,
        RolloutCommand::Watch { id } => {
            if session.printer.format == Format::Json {
                session.wait.emit = EmitMode::OnChange;
            }
            let first = session.client().get(&path(&id)).await?;
            session.watch(Subject::rollout(id), first, Goal::Success).await
        }
        RolloutCommand::Pause { id } => {
            // A pause takes effect when it is accepted; there is nothing to wait for.
            let response =
                session.client().change(Method::Post, &format!("{}/pause", path(&id)), None).await?;
            session.printer.value(Shape::Rollout, &response.value)?;
            Ok(Exit::Done)
        }
        RolloutCommand::Resume { id, accept_digest, force } => {
            let body = accept_digest.map(|digest| match force {
                true => json!({ "acceptDigest": digest, "force": true }),
                false => json!({ "acceptDigest": digest }),
            });
            session.submit(Method::Post, &format!("{}/resume", path(&id)), body, Goal::Success).await
        }
        RolloutCommand::Abort { id } => {
            session.submit(Method::Post, &format!("{}/abort", path(&id)), None, Goal::End).await
        }
        RolloutCommand::Retry { id, force } => {
            let retry = format!("{}/retry{}", path(&id), retry_query(force));
            session.submit(Method::Post, &retry, None, Goal::Success).await
        }
    }
}

/// Returns the query of a retry.
const fn retry_query(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}
