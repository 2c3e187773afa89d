//! `cdm site …`.

use cdm_http::api::ServiceName;
use cdm_http::api::SiteId;
use cdm_http::api::freeze::Freeze;
use cdm_http::api::list::Listing;
use cdm_http::api::operation::Operation;
use cdm_http::api::site::{CreateSite, Site};

use super::Session;
use crate::args::{CreateArgs, DeleteArgs, Format, ServiceColor, SiteCommand, SiteFilter};
use crate::client::body;
use crate::error::CliError;
use crate::exit::Exit;
use crate::io::Prompter;
use crate::transport::{Method, segment};
use crate::view::describe_freeze;
use crate::work::Goal;

pub(super) async fn run(command: SiteCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        SiteCommand::Create(args) => create(args, session).await,
        SiteCommand::List(filter) => list(filter, session).await,
        SiteCommand::Get { id } => get(&id, session).await,
        SiteCommand::Provision { id } => {
            session
                .submit::<Operation>(Method::Post, &format!("{}/provision", path(&id)), Goal::Success)
                .await
        }
        SiteCommand::Upgrade { id } => {
            session.submit::<Operation>(Method::Put, &format!("{}/upgrade", path(&id)), Goal::Success).await
        }
        SiteCommand::Promote { id } => {
            session.submit::<Operation>(Method::Put, &format!("{}/promote", path(&id)), Goal::Success).await
        }
        SiteCommand::Delete(args) => {
            confirm(&args, session)?;
            session.submit::<Operation>(Method::Delete, &path(&args.id), Goal::Success).await
        }
    }
}

/// Shows a site, and in table format also the freezes that apply to it.
async fn get(id: &str, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let ended = session.show::<Site>(&path(id)).await?;
    if session.printer.format == Format::Table {
        let freezes = session.client().get::<Listing<Freeze>>("/freezes").await?.value;
        for freeze in &freezes.items {
            let named = freeze.sites.as_ref();
            if named.is_none_or(|sites| sites.iter().any(|site| site.as_str() == id)) {
                session.printer.note(&describe_freeze(freeze));
            }
        }
    }
    Ok(ended)
}

async fn create(args: CreateArgs, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let canonical = args.canonical.or_else(|| args.hostnames.first().cloned());
    let request = CreateSite {
        name: args.name.unwrap_or_else(|| args.id.clone()),
        id: SiteId::from(args.id),
        theme: args.theme,
        canonical_hostname: canonical.unwrap_or_default(),
        hostnames: args.hostnames,
        service: args.service.map(ServiceColor::name),
    };
    let response = session.client().change(Method::Post, "/sites/create", Some(body(&request)?)).await?;
    if response.status == 202 {
        return session.wait_or_print_id(response.parse::<Operation>()?, Goal::Success).await;
    }
    session.printer.value(&response.parse::<Site>()?)?;
    Ok(Exit::Done)
}

async fn list(filter: SiteFilter, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let service = filter.service.map(ServiceColor::name);
    let filters = [
        ("service", service.as_ref().map(ServiceName::as_str)),
        ("state", filter.state.as_deref()),
        ("q", filter.search.as_deref()),
        ("drifted", filter.drifted.then_some("true")),
    ];
    let (items, more) = session.client().list::<Site>("/sites", &filters, filter.paging).await?;
    session.printer.list(&items, more)?;
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
