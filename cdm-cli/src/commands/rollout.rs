//! The request of `cdm services rollout`, its plan, and `cdm freeze …`.

use cdm_http::api::SiteId;
use cdm_http::api::freeze::{CreateFreeze, Freeze};
use cdm_http::api::gate::Gate;
use cdm_http::api::list::Removed;
use cdm_http::api::plan::Plan;
use cdm_http::api::rollout::{
    BudgetCount, BudgetPercent, RequestedBudget, Scope, ScopeName, ScopeSites, StartRollout,
};
use cdm_http::api::services::Flag;

use super::Session;
use super::platform::after;
use crate::args::{FreezeCommand, GateArgs, RolloutArgs};
use crate::client::body;
use crate::error::CliError;
use crate::exit::Exit;
use crate::transport::{Method, segment};

/// Builds the request from the options that were given; the server has the defaults.
pub(super) fn rollout(args: RolloutArgs) -> StartRollout {
    let scope = match (args.sites, args.scope) {
        (sites, _) if !sites.is_empty() => Some(Scope::Sites(ScopeSites { sites: ids(sites) })),
        (_, name) => name.map(|name| Scope::Named(ScopeName::from(name.as_str()))),
    };
    let budget = |text: String| match text.parse::<u32>() {
        Ok(count) => RequestedBudget::Count(BudgetCount(count)),
        Err(_) => RequestedBudget::Percent(BudgetPercent(text)),
    };
    StartRollout {
        image_tag: args.image,
        promote: Flag::Bool(args.promote),
        scope,
        waves: Some(args.waves).filter(|waves| !waves.is_empty()),
        max_concurrent: args.max_concurrent,
        failure_budget: args.failure_budget.map(budget),
        auto_rollback: args.auto_rollback.then_some(true),
        gate: gate(args.gate),
        bake: args.bake.map(|time| time.as_secs()),
        dry_run: args.dry_run.then_some(true),
        plan_hash: args.plan,
    }
}

fn ids(sites: Vec<String>) -> Vec<SiteId> {
    sites.into_iter().map(SiteId::from).collect()
}

/// Requests a plan and prints it.
pub(super) async fn plan(args: RolloutArgs, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let response = session.client().change(Method::Put, "/services", Some(body(&rollout(args))?)).await?;
    let plan = response.parse::<Plan>()?;
    session.printer.value(&plan)?;
    let hash = &plan.value.plan_hash;
    session
        .printer
        .note(&format!("nothing was changed; to run this plan, repeat the command with --plan {hash}"));
    Ok(Exit::Done)
}

pub(super) async fn freeze(command: FreezeCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        FreezeCommand::Create { reason, sites, lasts, until } => {
            let expires_at = match (until, lasts) {
                (Some(at), _) => Some(at),
                (None, Some(span)) => Some(after(session, span)?),
                (None, None) => None,
            };
            let sites = (!sites.is_empty()).then(|| ids(sites));
            let request = CreateFreeze { sites, reason, expires_at };
            let response = session.client().change(Method::Post, "/freezes", Some(body(&request)?)).await?;
            session.printer.value(&response.parse::<Freeze>()?)?;
        }
        FreezeCommand::List { paging } => {
            let (items, more) = session.client().short_list::<Freeze>("/freezes", paging).await?;
            session.printer.list(&items, more)?;
        }
        FreezeCommand::Remove { id } => {
            let path = format!("/freezes/{}", segment(&id));
            let response = session.client().change(Method::Delete, &path, None).await?;
            session.printer.value(&response.parse::<Removed>()?)?;
            session.printer.note(&format!("freeze `{id}` is removed"));
        }
    }
    Ok(Exit::Done)
}

fn gate(args: GateArgs) -> Option<Gate> {
    Some(Gate {
        path: args.gate_path?,
        status: args.gate_status,
        contains: args.gate_contains,
        max_latency_ratio: args.gate_max_latency_ratio,
        settle: args.gate_settle.map(|time| time.as_secs()),
    })
}
