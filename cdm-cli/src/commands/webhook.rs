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
            let answer = session.client().change(Method::Post, "/webhooks", Some(body)).await?;
            match (session.printer.format, answer.value.get("key").and_then(Value::as_str)) {
                (Format::Table, Some(key)) => {
                    let id = answer.value.get("id").map(plain).unwrap_or_default();
                    let told = format!("webhook `{id}` is told what happens; its key, shown this once:");
                    session.printer.note(&told);
                    session.printer.text(&format!("{key}\n"))?;
                }
                (Format::Table | Format::Json | Format::Yaml, _) => {
                    session.printer.value(Shape::Webhook, &answer.value)?;
                }
            }
        }
        WebhookCommand::List { paging } => {
            let (items, more) = session.client().short_list("/webhooks", paging).await?;
            session.printer.list(Shape::Webhook, &items, more)?;
        }
        WebhookCommand::Remove { id } => {
            let path = format!("/webhooks/{}", segment(&id));
            let answer = session.client().change(Method::Delete, &path, None).await?;
            session.printer.value(Shape::Done, &answer.value)?;
            session.printer.note(&format!("webhook `{id}` is removed"));
        }
    }
    Ok(Exit::Done)
}
