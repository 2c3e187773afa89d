//! `cdm webhook …`.

use serde_json::{Value, json};

use super::Session;
use crate::args::{Format, WebhookCommand};
use crate::error::CliError;
use crate::exit::Exit;
use crate::transport::{Method, segment};
use crate::view::{Shape, plain};

pub(super) async fn run(command: WebhookCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        WebhookCommand::Create { url, events } => {
            let mut body = json!({ "url": url });
            if !events.is_empty() {
                body["events"] = events.into();
            }
            let response = session.client().change(Method::Post, "/webhooks", Some(body)).await?;
            match (session.printer.format, response.value.get("key").and_then(Value::as_str)) {
                (Format::Table, Some(key)) => {
                    let id = response.value.get("id").map(plain).unwrap_or_default();
                    let message = format!("webhook `{id}` is created; its signing key, shown only once:");
                    session.printer.note(&message);
                    session.printer.text(&format!("{key}\n"))?;
                }
                (Format::Table | Format::Json | Format::Yaml, _) => {
                    session.printer.value(Shape::Webhook, &response.value)?;
                }
            }
        }
        WebhookCommand::List { paging } => {
            let (items, more) = session.client().short_list("/webhooks", paging).await?;
            session.printer.list(Shape::Webhook, &items, more)?;
        }
        WebhookCommand::Remove { id } => {
            let path = format!("/webhooks/{}", segment(&id));
            let response = session.client().change(Method::Delete, &path, None).await?;
            session.printer.value(Shape::Done, &response.value)?;
            session.printer.note(&format!("webhook `{id}` is removed"));
        }
    }
    Ok(Exit::Done)
}
