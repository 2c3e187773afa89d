//! Blue and green side by side, what ran on them, and, in `deeds`, what is asked of them.

pub(crate) mod deeds;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use cdm_core::domain::Color;
use cdm_core::manager::Action;

use super::guard::Visit;
use super::offers::Offers;
use super::page::{Section, View, live, rendered};
use super::shape::{self, Now};
use crate::api::freeze::Freeze;
use crate::api::operation::Operation;
use crate::api::rollout::Rollout;
use crate::api::services::{Release, Service};
use crate::app::Shared;
use crate::error::Refusal;
use crate::input::Named;
use crate::routes::operations::{OperationFilter, listed};
use crate::routes::services::shown;

pub(crate) const PATH: &str = "/console/services";
/// Releases that the page tells of at once; the rest is behind a click.
const RELEASES: usize = 5;
/// Rollouts that it looks at for those that need a person.
const ROLLOUTS: usize = 20;
/// Parked operations that it tells of.
const PARKED: &str = "20";

struct Side {
    name: String,
    is_canary: bool,
    service: Service,
    releases: Vec<Release>,
    older: Vec<Release>,
}

/// What a visitor may ask of the services.
#[derive(Clone, Copy, Debug)]
struct Can {
    select: bool,
    deploy: bool,
    roll_back: bool,
    mark: bool,
}

#[derive(Template)]
#[template(path = "services.html")]
struct Both {
    sides: Vec<Side>,
    rollout: Option<Rollout>,
    freezes: Vec<Freeze>,
    /// Rollouts that wait for a person, or ended with sites that do.
    standing: Vec<Rollout>,
    parked: Vec<Operation>,
    more_parked: bool,
    can: Can,
    /// Why not more can be asked.
    why: Option<String>,
    now: Now,
}

/// Shows both services.
pub(crate) async fn show(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    live(
        server,
        visit,
        |_| true,
        |server, visitor| async move {
            let view = server.app.manager.services().await?;
            let both = shown(&server, &view);
            let mut sides = Vec::new();
            for (name, service) in both.services {
                let color = Color::named(&name)?;
                let all = view.service(color).releases.iter();
                let mut releases: Vec<_> = all.map(|release| Release::new(color, release)).collect();
                let older = releases.split_off(RELEASES.min(releases.len()));
                sides.push(Side { is_canary: name == both.canary.color, name, service, releases, older });
            }
            let filter = OperationFilter {
                status: Some("parked".to_owned()),
                limit: Some(PARKED.to_owned()),
                ..OperationFilter::default()
            };
            let parked = listed(&server, &filter).await?;
            let rollouts = server.app.manager.rollouts(None, ROLLOUTS).await?.items;
            let rollouts: Vec<_> =
                rollouts.iter().map(|known| crate::routes::rollouts::shown(&server, known)).collect();
            let rollout = match view.rollout {
                Some(number) => {
                    let known = server.app.manager.get_rollout(number).await?;
                    Some(crate::routes::rollouts::shown(&server, &known))
                }
                None => None,
            };
            let now = Now(server.app.clock.wall());
            let mut offers = Offers::to(&visitor);
            let can = Can {
                select: offers.offer("Select", Action::Select.role()),
                deploy: offers.offer("Deploy", Action::Deploy.role()),
                roll_back: offers.offer("Roll back", Action::RollBack.role()),
                mark: offers.offer("Mark", Action::Mark.role()),
            };
            let body = Both {
                sides,
                standing: standing(rollout.as_ref(), rollouts),
                rollout,
                freezes: both.freezes,
                parked: parked.items,
                more_parked: parked.next.is_some(),
                can,
                why: offers.why(),
                now,
            };
            Ok(View {
                title: "Services".to_owned(),
                section: Section::Services,
                head: "<h1>Services</h1>".to_owned(),
                body: rendered(&body)?,
            })
        },
    )
    .await
}

/// The rollouts that need a person: the unfinished one where it stands still, and those that ended with parked sites which
/// no later one took up.
fn standing(unfinished: Option<&Rollout>, newest: Vec<Rollout>) -> Vec<Rollout> {
    let mut standing: Vec<_> =
        unfinished.filter(|rollout| shape::stands(rollout)).cloned().into_iter().collect();
    let retried: Vec<_> = newest.iter().filter_map(|rollout| rollout.retry_of.clone()).collect();
    let left = |rollout: &Rollout| {
        let ended =
            rollout.finished_at.is_some() && rollout.counts.parked > 0 && !retried.contains(&rollout.id);
        (ended || shape::stands(rollout)) && unfinished.is_none_or(|other| other.id != rollout.id)
    };
    standing.extend(newest.iter().filter(|rollout| left(rollout)).cloned());
    standing
}
