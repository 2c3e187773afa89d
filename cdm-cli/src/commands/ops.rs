//! `cdm op …` and `cdm rollout …`.

use cdm_http::api::operation::Operation;
use cdm_http::api::rollout::{ResumeRollout, Rollout};
use serde_json::json;

use super::Session;
use crate::args::{Format, OpCommand, RolloutCommand};
use crate::client::Received;
use crate::error::{CliError, Subject};
use crate::exit::Exit;
use crate::transport::{Method, segment};
use crate::wait::EmitMode;
use crate::work::Goal;

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
            let (items, more) = session.client().list::<Operation>("/operations", &filters, paging).await?;
            session.printer.list(&items, more)?;
            Ok(Exit::Done)
        }
        OpCommand::Get { id } => session.show::<Operation>(&path(&id)).await,
        OpCommand::Watch { id } => {
            let first = session.client().get::<Operation>(&path(&id)).await?;
            session.watch(first, Goal::Success).await
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
                    session.printer.value(&Received::local(report)?)?;
                }
            }
            Ok(Exit::Done)
        }
        OpCommand::Retry { id, force } => {
            let retry = format!("{}/retry{}", path(&id), retry_query(force));
            session.submit::<Operation>(Method::Post, &retry, Goal::Success).await
        }
        OpCommand::Cancel { id } => {
            session.submit::<Operation>(Method::Post, &format!("{}/cancel", path(&id)), Goal::End).await
        }
    }
}

pub(super) async fn rollout(command: RolloutCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let path = |id: &str| Subject::rollout(id).path();
    match command {
        RolloutCommand::List { paging } => {
            let (items, more) = session.client().list::<Rollout>("/rollouts", &[], paging).await?;
            session.printer.list(&items, more)?;
            Ok(Exit::Done)
        }
        RolloutCommand::Get { id } => session.show::<Rollout>(&path(&id)).await,
        RolloutCommand::Watch { id } => {
            if session.printer.format == Format::Json {
                session.wait.emit = EmitMode::OnChange;
            }
            let first = session.client().get::<Rollout>(&path(&id)).await?;
            session.watch(first, Goal::Success).await
        }
        RolloutCommand::Pause { id } => {
            // A pause takes effect when it is accepted; there is nothing to wait for.
            let response =
                session.client().change(Method::Post, &format!("{}/pause", path(&id)), None).await?;
            session.printer.value(&response.parse::<Rollout>()?)?;
            Ok(Exit::Done)
        }
        RolloutCommand::Resume { id, accept_digest, force } => {
            let resume = format!("{}/resume", path(&id));
            match accept_digest {
                Some(digest) => {
                    let accept_digest = Some(digest);
                    let request = ResumeRollout { accept_digest, force: force.then_some(true) };
                    session.submit_with::<Rollout>(Method::Post, &resume, &request).await
                }
                None => session.submit::<Rollout>(Method::Post, &resume, Goal::Success).await,
            }
        }
        RolloutCommand::Abort { id } => {
            session.submit::<Rollout>(Method::Post, &format!("{}/abort", path(&id)), Goal::End).await
        }
        RolloutCommand::Retry { id, force } => {
            let retry = format!("{}/retry{}", path(&id), retry_query(force));
            session.submit::<Rollout>(Method::Post, &retry, Goal::Success).await
        }
    }
}

/// Returns the query of a retry.
const fn retry_query(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}
