//! `cdm webhook …`.

use cdm_http::api::list::Removed;
use cdm_http::api::webhook::{CreateWebhook, MadeWebhook, Topic, Webhook};

use super::Session;
use crate::args::{Format, WebhookCommand};
use crate::client::body;
use crate::error::CliError;
use crate::exit::Exit;
use crate::text::clean;
use crate::transport::{Method, segment};

pub(super) async fn run(command: WebhookCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        WebhookCommand::Create { url, events } => {
            let events: Vec<_> = events.iter().map(|event| Topic::from(event.as_str())).collect();
            let request = CreateWebhook { url, events: Some(events).filter(|events| !events.is_empty()) };
            let response = session.client().change(Method::Post, "/webhooks", Some(body(&request)?)).await?;
            let made = response.parse::<MadeWebhook>()?;
            match session.printer.format {
                Format::Table => {
                    let id = clean(made.value.record.id.as_str());
                    let message = format!("webhook `{id}` is created; its signing key, shown only once:");
                    session.printer.note(&message);
                    session.printer.text(&format!("{}\n", made.value.key))?;
                }
                Format::Json | Format::Yaml => session.printer.value(&made)?,
            }
        }
        WebhookCommand::List { paging } => {
            let (items, more) = session.client().short_list::<Webhook>("/webhooks", paging).await?;
            session.printer.list(&items, more)?;
        }
        WebhookCommand::Remove { id } => {
            let path = format!("/webhooks/{}", segment(&id));
            let response = session.client().change(Method::Delete, &path, None).await?;
            session.printer.value(&response.parse::<Removed>()?)?;
            session.printer.note(&format!("webhook `{id}` is removed"));
        }
    }
    Ok(Exit::Done)
}
