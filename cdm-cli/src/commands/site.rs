//! `cdm site …`.

use serde_json::{Value, json};

use super::Session;
use crate::args::{CreateArgs, DeleteArgs, Format, ServiceColor, SiteCommand, SiteFilter};
use crate::error::CliError;
use crate::exit::Exit;
use crate::io::Prompter;
use crate::transport::{Method, segment};
use crate::view::{Shape, describe_freeze};
use crate::wait::Goal;

pub(super) async fn run(command: SiteCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        SiteCommand::Create(args) => create(args, session).await,
        SiteCommand::List(filter) => list(filter, session).await,
        SiteCommand::Get { id } => get(&id, session).await,
        SiteCommand::Provision { id } => {
            session.submit(Method::Post, &format!("{}/provision", path(&id)), None, Goal::Success).await
        }
        SiteCommand::Upgrade { id } => {
            session.submit(Method::Put, &format!("{}/upgrade", path(&id)), None, Goal::Success).await
        }
        SiteCommand::Promote { id } => {
            session.submit(Method::Put, &format!("{}/promote", path(&id)), None, Goal::Success).await
        }
        SiteCommand::Delete(args) => {
            confirm(&args, session)?;
            session.submit(Method::Delete, &path(&args.id), None, Goal::Success).await
        }
    }
}

/// Shows a site, and in table format also the freezes that apply to it.
async fn get(id: &str, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let ended = session.show(Shape::Site, &path(id)).await?;
    if session.printer.format == Format::Table {
        let freezes = session.client().get("/freezes").await?;
        for freeze in freezes.get("items").and_then(Value::as_array).into_iter().flatten() {
            let named = freeze.get("sites").and_then(Value::as_array);
            if named.is_none_or(|sites| sites.iter().any(|site| site.as_str() == Some(id))) {
                session.printer.note(&describe_freeze(freeze));
            }
        }
    }
    Ok(ended)
}

async fn create(args: CreateArgs, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let canonical = args.canonical.as_ref().or(args.hostnames.first());
    let mut body = json!({
        "id": args.id,
        "theme": args.theme,
        "hostnames": args.hostnames,
        "name": args.name.as_ref().unwrap_or(&args.id),
        "canonicalHostname": canonical,
    });
    if let Some(service) = args.service {
        body["service"] = service.as_str().into();
    }
    let response = session.client().change(Method::Post, "/sites/create", Some(body)).await?;
    if response.status == 202 {
        return session.wait_or_print_id(response, Goal::Success).await;
    }
    session.printer.value(Shape::Site, &response.value)?;
    Ok(Exit::Done)
}

async fn list(filter: SiteFilter, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let filters = [
        ("service", filter.service.map(ServiceColor::as_str)),
        ("state", filter.state.as_deref()),
        ("q", filter.search.as_deref()),
        ("drifted", filter.drifted.then_some("true")),
    ];
    let (items, more) = session.client().list("/sites", &filters, filter.paging).await?;
    session.printer.list(Shape::Site, &items, more)?;
    Ok(Exit::Done)
}

/// Prompts for the id, if necessary. Nothing is awaited before the input, so that Ctrl-C at the prompt still ends the
/// process.
fn confirm(args: &DeleteArgs, session: &mut Session<'_>) -> Result<(), CliError> {
    let unconfirmed = || CliError::Unconfirmed { site: args.id.clone() };
    let typed = match (&args.confirm, &mut session.prompter) {
        (Some(id), _) => id.clone(),
        (None, Prompter::NonInteractive) => return Err(unconfirmed()),
        (None, Prompter::Interactive { input, .. }) => {
            session.printer.prompt(&format!(
                "This deletes site `{}` with its database and files. Type its id to continue:",
                args.id
            ));
            let mut line = String::new();
            input
                .read_line(&mut line)
                .map_err(|source| CliError::Io { what: "reading the confirmation".into(), source })?;
            line.trim().to_owned()
        }
    };
    if typed == args.id { Ok(()) } else { Err(unconfirmed()) }
}

fn path(id: &str) -> String {
    format!("/sites/{}", segment(id))
}
