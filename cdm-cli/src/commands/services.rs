//! `cdm services …`.

use cdm_http::api::operation::Operation;
use cdm_http::api::rollout::Rollout;
use cdm_http::api::services::{
    DeployImage, Flag, Mark, Release, Rollback, SelectService, Selected, Services,
};

use super::Session;
use super::rollout::{plan, rollout};
use crate::args::{ServiceColor, ServicesCommand};
use crate::client::{More, body, items};
use crate::error::CliError;
use crate::exit::Exit;
use crate::invocation::Target;
use crate::transport::{Method, segment};
use crate::work::Goal;

pub(super) async fn run(command: ServicesCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        ServicesCommand::Show => {
            let services = session.client().get::<Services>("/services").await?;
            session.printer.value(&services)?;
            if session.printer.invocation.target() == Target::InProcess && starting(&services.value) {
                session.printer.note(
                    "the local cluster runs only while a process uses its store: it has started with this command, \
                     and its pods need a moment",
                );
            }
            Ok(Exit::Done)
        }
        ServicesCommand::Select { service } => {
            let request = SelectService { service: service.name() };
            let response = session.client().change(Method::Post, "/services", Some(body(&request)?)).await?;
            if response.status == 202 {
                return session.wait_or_print_id(response.parse::<Operation>()?, Goal::Success).await;
            }
            let selected = response.parse::<Selected>()?;
            for warning in &selected.value.warnings {
                session.printer.warn(warning);
            }
            session.printer.value(&selected)?;
            Ok(Exit::Done)
        }
        ServicesCommand::Deploy { image, promote, service } => {
            let request = DeployImage {
                image_tag: image,
                promote: promote.then_some(Flag::Bool(true)),
                service: service.map(ServiceColor::name),
            };
            session.submit_with::<Operation>(Method::Post, "/services", &request).await
        }
        ServicesCommand::Rollout(args) => {
            if args.dry_run {
                return plan(*args, session).await;
            }
            if !args.selects_work() {
                return Err(CliError::NothingSelected);
            }
            session.submit_with::<Rollout>(Method::Put, "/services", &rollout(*args)).await
        }
        ServicesCommand::History { service, paging } => {
            let path = format!("/services/{}/history", service.name());
            let (items, more) = session.client().short_list::<Release>(&path, paging).await?;
            session.printer.list(&items, more)?;
            Ok(Exit::Done)
        }
        ServicesCommand::Mark { digest, verdict, reason } => {
            let path = format!("/services/history/{}", segment(&digest));
            let request = Mark { verdict: verdict.into(), reason };
            let response = session.client().change(Method::Post, &path, Some(body(&request)?)).await?;
            session.printer.list(&items::<Release>(response.json)?, More::None)?;
            Ok(Exit::Done)
        }
        ServicesCommand::Rollback { service } => {
            let request = Rollback { service: service.map(ServiceColor::name) };
            session.submit_with::<Operation>(Method::Post, "/services/rollback", &request).await
        }
    }
}

/// Returns whether a service has fewer ready pods than desired.
fn starting(services: &Services) -> bool {
    services.services.values().any(|service| service.ready < service.desired)
}
