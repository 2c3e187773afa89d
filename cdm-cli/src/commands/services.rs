//! `cdm services …`.

use serde_json::{Value, json};

use super::Session;
use super::rollout::{plan, rollout};
use crate::args::ServicesCommand;
use crate::client::items;
use crate::error::CliError;
use crate::exit::Exit;
use crate::invocation::Target;
use crate::printer::More;
use crate::transport::{Method, segment};
use crate::view::Shape;
use crate::wait::Goal;

pub(super) async fn run(command: ServicesCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        ServicesCommand::Show => {
            let value = session.client().get("/services").await?;
            session.printer.value(Shape::Services, &value)?;
            if session.printer.invocation.target() == Target::InProcess && starting(&value) {
                session.printer.note(
                    "the local cluster runs only while a process uses its store: it has started with this command, \
                     and its pods need a moment",
                );
            }
            Ok(Exit::Done)
        }
        ServicesCommand::Select { service } => {
            let body = json!({ "selector": service.as_str() });
            let response = session.client().change(Method::Post, "/services", Some(body)).await?;
            if response.status == 202 {
                return session.wait_or_print_id(response, Goal::Success).await;
            }
            for warning in response.value.get("warnings").and_then(Value::as_array).into_iter().flatten() {
                session.printer.warn(&crate::view::plain(warning));
            }
            session.printer.value(Shape::Selection, &response.value)?;
            Ok(Exit::Done)
        }
        ServicesCommand::Deploy { image, promote, service } => {
            let mut body = json!({ "imageTag": image });
            if promote {
                body["promote"] = true.into();
            }
            if let Some(service) = service {
                body["service"] = service.as_str().into();
            }
            session.submit(Method::Post, "/services", Some(body), Goal::Success).await
        }
        ServicesCommand::Rollout(args) => {
            if args.dry_run {
                return plan(*args, session).await;
            }
            if !args.selects_work() {
                return Err(CliError::NothingSelected);
            }
            session.submit(Method::Put, "/services", Some(rollout(*args)), Goal::Success).await
        }
        ServicesCommand::History { service, paging } => {
            let path = format!("/services/{}/history", service.as_str());
            let (items, more) = session.client().short_list(&path, paging).await?;
            session.printer.list(Shape::Release, &items, more)?;
            Ok(Exit::Done)
        }
        ServicesCommand::Mark { digest, verdict, reason } => {
            let path = format!("/services/history/{}", segment(&digest));
            let body = json!({ "verdict": verdict.as_str(), "reason": reason });
            let response = session.client().change(Method::Post, &path, Some(body)).await?;
            session.printer.list(Shape::Release, &items(response.value)?, More::None)?;
            Ok(Exit::Done)
        }
        ServicesCommand::Rollback { service } => {
            let body = match service {
                Some(service) => json!({ "service": service.as_str() }),
                None => json!({}),
            };
            session.submit(Method::Post, "/services/rollback", Some(body), Goal::Success).await
        }
    }
}

/// Returns whether a service has fewer ready pods than desired.
fn starting(services: &Value) -> bool {
    let count = |service: &Value, key: &str| service.get(key).and_then(Value::as_u64).unwrap_or(0);
    let services = services.get("services").and_then(Value::as_object);
    services.is_some_and(|all| all.values().any(|one| count(one, "ready") < count(one, "desired")))
}
