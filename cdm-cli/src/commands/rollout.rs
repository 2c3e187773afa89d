//! The request of `cdm services rollout`, its plan, and `cdm freeze …`.

use serde_json::{Map, Value, json};

use super::Session;
use super::platform::after;
use crate::args::{FreezeCommand, GateArgs, RolloutArgs};
use crate::error::CliError;
use crate::exit::Exit;
use crate::transport::{Method, segment};
use crate::view::Shape;

/// Builds the request from the options that were given; the server has the defaults.
pub(super) fn rollout(args: RolloutArgs) -> Value {
    let mut body = Map::new();
    body.insert("promote".into(), args.promote.into());
    if let Some(image) = args.image {
        body.insert("imageTag".into(), image.into());
    }
    if !args.sites.is_empty() {
        body.insert("scope".into(), json!({ "sites": args.sites }));
    } else if let Some(scope) = args.scope {
        body.insert("scope".into(), scope.into());
    }
    if !args.waves.is_empty() {
        body.insert("waves".into(), args.waves.into());
    }
    if let Some(number) = args.max_concurrent {
        body.insert("maxConcurrent".into(), number.into());
    }
    if let Some(budget) = args.failure_budget {
        let budget = budget.parse::<u32>().map_or_else(|_| Value::from(budget), Value::from);
        body.insert("failureBudget".into(), budget);
    }
    if args.auto_rollback {
        body.insert("autoRollback".into(), true.into());
    }
    if let Some(bake) = args.bake {
        body.insert("bake".into(), bake.as_secs().into());
    }
    if let Some(gate) = gate(args.gate) {
        body.insert("gate".into(), gate);
    }
    if args.dry_run {
        body.insert("dryRun".into(), true.into());
    }
    if let Some(hash) = args.plan {
        body.insert("planHash".into(), hash.into());
    }
    Value::Object(body)
}

/// Requests a plan and prints it.
pub(super) async fn plan(args: RolloutArgs, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let response = session.client().change(Method::Put, "/services", Some(rollout(args))).await?;
    session.printer.value(Shape::Plan, &response.value)?;
    if let Some(hash) = response.value.get("planHash").and_then(Value::as_str) {
        session
            .printer
            .note(&format!("nothing was changed; to run this plan, repeat the command with --plan {hash}"));
    }
    Ok(Exit::Done)
}

/// `cdm freeze …`.
pub(super) async fn freeze(command: FreezeCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        FreezeCommand::Create { reason, sites, lasts, until } => {
            let mut body = json!({ "reason": reason });
            if !sites.is_empty() {
                body["sites"] = sites.into();
            }
            let ends = match (until, lasts) {
                (Some(at), _) => Some(at),
                (None, Some(span)) => Some(after(session, span)?),
                (None, None) => None,
            };
            if let Some(ends) = ends {
                body["expiresAt"] = ends.into();
            }
            let response = session.client().change(Method::Post, "/freezes", Some(body)).await?;
            session.printer.value(Shape::Freeze, &response.value)?;
        }
        FreezeCommand::List { paging } => {
            let (items, more) = session.client().short_list("/freezes", paging).await?;
            session.printer.list(Shape::Freeze, &items, more)?;
        }
        FreezeCommand::Remove { id } => {
            let path = format!("/freezes/{}", segment(&id));
            let response = session.client().change(Method::Delete, &path, None).await?;
            session.printer.value(Shape::Done, &response.value)?;
            session.printer.note(&format!("freeze `{id}` is removed"));
        }
    }
    Ok(Exit::Done)
}

fn gate(args: GateArgs) -> Option<Value> {
    let mut gate = Map::new();
    gate.insert("path".into(), args.gate_path?.into());
    if let Some(status) = args.gate_status {
        gate.insert("status".into(), status.into());
    }
    if let Some(text) = args.gate_contains {
        gate.insert("contains".into(), text.into());
    }
    if let Some(ratio) = args.gate_max_latency_ratio {
        gate.insert("maxLatencyRatio".into(), ratio.into());
    }
    if let Some(settle) = args.gate_settle {
        gate.insert("settle".into(), settle.as_secs().into());
    }
    Some(Value::Object(gate))
}
