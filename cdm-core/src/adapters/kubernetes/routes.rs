//! Routes: looked at before they are made, and moved by one patch that tests whose they are and under which fence.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::anchor;
use super::api::{Patch, Session};
use super::failure::Failure;
use super::image::is_test;
use super::names::{CDM, MANAGED_BY, fence, of_site, site_of};
use super::settings::KubernetesSettings;
use super::shape;
use crate::domain::{Color, Fence, Hostname, Uid};
use crate::ports::{CallContext, ErrorKind, Route, RouteSpec};

pub(super) async fn read(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    uid: Uid,
) -> Result<Option<Route>, Failure> {
    let object = session.get(shape::resource(&settings.route), &of_site(uid)).await?;
    object.map_or(Ok(None), |object| shape::route(settings, uid, &object))
}

pub(super) async fn put(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    call: &CallContext,
    spec: &RouteSpec,
) -> Result<(), Failure> {
    let resource = shape::resource(&settings.route);
    let anchor = anchor::ensure(session, spec.uid, &anchor::address(settings, &spec.hostnames)).await?;
    let foreign = || Failure::new(ErrorKind::Foreign, "another owner's route has one of the hostnames");
    for host in spec.hostnames.all() {
        let same_host =
            session.list(resource, &format!("{MANAGED_BY}={CDM},{}", shape::host_label(host))).await?;
        if same_host.iter().any(|route| site_of(route) != Some(spec.uid)) {
            return Err(foreign());
        }
    }
    let strangers = session.list(resource, &format!("{MANAGED_BY}!={CDM}")).await?;
    let ours: Vec<&str> = spec.hostnames.all().iter().map(Hostname::as_str).collect();
    if strangers.iter().any(|stranger| shape::hosts(stranger).iter().any(|host| ours.contains(host))) {
        return Err(foreign());
    }
    match session.create(resource, &shape::object(settings, spec, call.fence, &anchor.owner())).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::Exists => {
            let held = session.get(resource, &of_site(spec.uid)).await?;
            match held {
                Some(held) if site_of(&held) == Some(spec.uid) => {
                    Err(Failure::new(ErrorKind::Exists, "the site has a route"))
                }
                Some(_) => Err(foreign()),
                None => Err(Failure::new(ErrorKind::Unavailable, "the site's route comes and goes")),
            }
        }
        // An ingress controller that looks itself.
        Err(failure)
            if failure.kind == ErrorKind::Invalid
                && failure.message.contains("already defined in ingress") =>
        {
            Err(foreign())
        }
        Err(failure) => Err(failure),
    }
}

/// How many rules the route had that was last moved. Sites of a platform are alike, so the next one's patch is most
/// likely right without a look; where it is not, it is refused as a whole.
#[derive(Debug)]
pub(super) struct RuleCountHint(AtomicUsize);

impl Default for RuleCountHint {
    fn default() -> Self {
        Self(AtomicUsize::new(1))
    }
}

pub(super) async fn shift(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    guess: &RuleCountHint,
    (uid, expect, fence_after): (Uid, Fence, Fence),
    to: Color,
) -> Result<(), Failure> {
    let resource = shape::resource(&settings.route);
    let name = of_site(uid);
    let rules = guess.0.load(Ordering::Relaxed);
    let patch = shape::moved(settings, uid, rules, (expect, fence_after), to);
    match session.patch(resource, &name, Patch::Json(&patch)).await {
        Ok(_) => return Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => return Err(absent()),
        Err(failure) if is_test(&failure) => {}
        Err(failure) => return Err(failure),
    }
    let object = session.get(resource, &name).await?.ok_or_else(absent)?;
    shape::route(settings, uid, &object)?.ok_or_else(absent)?;
    let other = || Failure::new(ErrorKind::Conflict, "the route carries another fence");
    if fence(&object)? != expect {
        return Err(other());
    }
    let rules = shape::rules(&settings.route, &object);
    guess.0.store(rules, Ordering::Relaxed);
    let patch = shape::moved(settings, uid, rules, (expect, fence_after), to);
    match session.patch(resource, &name, Patch::Json(&patch)).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => Err(absent()),
        Err(failure) if is_test(&failure) => Err(other()),
        Err(failure) => Err(failure),
    }
}

fn absent() -> Failure {
    Failure::new(ErrorKind::NotFound, "the site has no route")
}
