//! The services page: blue and green side by side with the history of their images, and what needs an operator. The
//! actions on a service are in [`actions`].

pub(crate) mod actions;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use cdm_core::manager::Action;

use super::controls::Controls;
use super::format::{self, Now};
use super::page::{Section, View, live, render};
use super::session::PageRequest;
use crate::api::ServiceName;
use crate::api::freeze::Freeze;
use crate::api::operation::{Operation, OperationStatus};
use crate::api::rollout::Rollout;
use crate::api::services::{Release, Service};
use crate::app::SharedState;
use crate::error::ApiError;
use crate::routes::operations::{OperationFilter, listed};
use crate::routes::services::shown;

pub(crate) const PATH: &str = "/console/services";
/// Releases that the page shows per service; older releases are in a collapsed list.
const RELEASES: usize = 5;
/// The newest rollouts, among which the page looks for those that need an operator.
const ROLLOUTS: usize = 20;
/// Parked operations that the page shows at most.
const PARKED: &str = "20";

/// A service with its history.
struct Side {
    name: ServiceName,
    is_canary: bool,
    service: Service,
    /// The newest [`RELEASES`] releases.
    releases: Vec<Release>,
    /// The releases before these.
    older: Vec<Release>,
}

/// The actions on a service that the user's role permits.
#[derive(Clone, Copy, Debug)]
struct AllowedActions {
    select: bool,
    deploy: bool,
    roll_back: bool,
    mark: bool,
}

#[derive(Template)]
#[template(path = "services.html")]
struct ServicesBody {
    sides: Vec<Side>,
    rollout: Option<Rollout>,
    freezes: Vec<Freeze>,
    /// Rollouts that need an operator, or ended with parked sites.
    stopped: Vec<Rollout>,
    parked: Vec<Operation>,
    more_parked: bool,
    can: AllowedActions,
    /// Names the controls that the user's role does not permit.
    role_note: Option<String>,
    now: Now,
}

pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
) -> Result<Response, ApiError> {
    live(
        server,
        request,
        |_| true,
        |server, current_user| async move {
            let view = server.app.manager.services().await?;
            let both = shown(&server, &view);
            let mut sides = Vec::new();
            for (name, service) in both.services {
                let Some(color) = name.known() else { continue };
                let all = view.service(color).releases.iter();
                let mut releases: Vec<_> = all.map(|release| Release::new(color, release)).collect();
                let older = releases.split_off(RELEASES.min(releases.len()));
                sides.push(Side { is_canary: name == both.canary.service, name, service, releases, older });
            }
            let filter = OperationFilter {
                status: Some(OperationStatus::Parked),
                limit: Some(PARKED.to_owned()),
                ..OperationFilter::default()
            };
            let parked = listed(&server, &filter).await?;
            let rollouts = server.app.manager.rollouts(None, ROLLOUTS).await?.items;
            let rollouts: Vec<_> =
                rollouts.iter().map(|stored| crate::routes::rollouts::shown(&server, stored)).collect();
            let rollout = match view.rollout {
                Some(number) => {
                    let stored = server.app.manager.get_rollout(number).await?;
                    Some(crate::routes::rollouts::shown(&server, &stored))
                }
                None => None,
            };
            let now = Now(server.app.clock.wall());
            let mut controls = Controls::for_user(&current_user);
            let can = AllowedActions {
                select: controls.permits("Select", Action::Select.role()),
                deploy: controls.permits("Deploy", Action::Deploy.role()),
                roll_back: controls.permits("Roll back", Action::RollBack.role()),
                mark: controls.permits("Mark", Action::Mark.role()),
            };
            let body = ServicesBody {
                sides,
                stopped: stopped(rollout.as_ref(), rollouts),
                rollout,
                freezes: both.freezes,
                parked: parked.items,
                more_parked: parked.next.is_some(),
                can,
                role_note: controls.role_note(),
                now,
            };
            Ok(View {
                title: "Services".to_owned(),
                section: Section::Services,
                head: "<h1>Services</h1>".to_owned(),
                body: render(&body)?,
            })
        },
    )
    .await
}

/// Returns the rollouts that need an operator: the unfinished rollout if it has stopped, and rollouts that ended with
/// parked sites and were not retried.
fn stopped(unfinished: Option<&Rollout>, newest: Vec<Rollout>) -> Vec<Rollout> {
    let mut stopped: Vec<_> =
        unfinished.filter(|rollout| format::needs_operator(rollout)).cloned().into_iter().collect();
    let retried: Vec<_> = newest.iter().filter_map(|rollout| rollout.retry_of.clone()).collect();
    let is_open = |rollout: &Rollout| {
        let ended =
            rollout.finished_at.is_some() && rollout.counts.parked > 0 && !retried.contains(&rollout.id);
        (ended || format::needs_operator(rollout)) && unfinished.is_none_or(|other| other.id != rollout.id)
    };
    stopped.extend(newest.iter().filter(|rollout| is_open(rollout)).cloned());
    stopped
}
