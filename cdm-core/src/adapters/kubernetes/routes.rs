//! Routes: created after a check of their hostnames, and moved by one patch that tests owner and fence.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::anchor;
use super::api::Session;
use super::failure::Failure;
use super::image::is_failed_test;
use super::manifest::{self, RouteObject};
use super::names::{CDM, MANAGED_BY, fence, of_site, site_of};
use super::settings::KubernetesSettings;
use crate::domain::{Color, Fence, Hostname, Uid};
use crate::ports::{CallContext, ErrorKind, Route, RouteSpec};

pub(super) async fn read(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    uid: Uid,
) -> Result<Option<Route>, Failure> {
    let object = RouteObject::get(session, &settings.route, &of_site(uid)).await?;
    object.map_or(Ok(None), |object| manifest::route(settings, uid, &object))
}

pub(super) async fn put(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    call: &CallContext,
    spec: &RouteSpec,
) -> Result<(), Failure> {
    let kind = &settings.route;
    let anchor = anchor::ensure(session, spec.uid, &anchor::address(settings, &spec.hostnames)).await?;
    let foreign = || Failure::new(ErrorKind::Foreign, "the route of another owner has one of the hostnames");
    for host in spec.hostnames.all() {
        let selector = format!("{MANAGED_BY}={CDM},{}", manifest::host_label(host));
        let same_host = RouteObject::list(session, kind, &selector).await?;
        if same_host.iter().any(|route| site_of(route.metadata()) != Some(spec.uid)) {
            return Err(foreign());
        }
    }
    let others = RouteObject::list(session, kind, &format!("{MANAGED_BY}!={CDM}")).await?;
    let own_hosts: Vec<&str> = spec.hostnames.all().iter().map(Hostname::as_str).collect();
    if others.iter().any(|other| other.hosts().iter().any(|host| own_hosts.contains(host))) {
        return Err(foreign());
    }
    match RouteObject::new(settings, spec, call.fence, anchor.owner()).create(session).await {
        Ok(()) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::Exists => {
            let existing = RouteObject::get(session, kind, &of_site(spec.uid)).await?;
            match existing {
                Some(existing) if site_of(existing.metadata()) == Some(spec.uid) => {
                    Err(Failure::new(ErrorKind::Exists, "the site already has a route"))
                }
                Some(_) => Err(foreign()),
                None => Err(Failure::new(
                    ErrorKind::Unavailable,
                    "the site's route was created and deleted at the same time",
                )),
            }
        }
        // An ingress controller may check hostnames itself, in an admission webhook.
        Err(failure)
            if failure.kind == ErrorKind::Invalid
                && failure.message.contains("already defined in ingress") =>
        {
            Err(foreign())
        }
        Err(failure) => Err(failure),
    }
}

/// The number of rules of the route that was moved last. Most sites have the same number, so the next patch is usually
/// right without reading the route first; if it is not, the server rejects the whole patch.
#[derive(Debug)]
pub(super) struct RuleCountHint(AtomicUsize);

impl Default for RuleCountHint {
    fn default() -> Self {
        Self(AtomicUsize::new(1))
    }
}

pub(super) async fn move_route(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    hint: &RuleCountHint,
    (uid, expect, fence_after): (Uid, Fence, Fence),
    to: Color,
) -> Result<(), Failure> {
    let (kind, name) = (&settings.route, of_site(uid));
    let rules = hint.0.load(Ordering::Relaxed);
    let patch = manifest::move_patch(settings, uid, rules, (expect, fence_after), to);
    match manifest::patch(session, kind, &name, patch).await {
        Ok(()) => return Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => return Err(absent()),
        Err(failure) if is_failed_test(&failure) => {}
        Err(failure) => return Err(failure),
    }
    let object = RouteObject::get(session, kind, &name).await?.ok_or_else(absent)?;
    manifest::route(settings, uid, &object)?.ok_or_else(absent)?;
    let other = || Failure::new(ErrorKind::Conflict, "the route has another fence");
    if fence(object.metadata())? != expect {
        return Err(other());
    }
    let rules = object.moved_rules();
    hint.0.store(rules, Ordering::Relaxed);
    let patch = manifest::move_patch(settings, uid, rules, (expect, fence_after), to);
    match manifest::patch(session, kind, &name, patch).await {
        Ok(()) => Ok(()),
        Err(failure) if failure.kind == ErrorKind::NotFound => Err(absent()),
        Err(failure) if is_failed_test(&failure) => Err(other()),
        Err(failure) => Err(failure),
    }
}

fn absent() -> Failure {
    Failure::new(ErrorKind::NotFound, "the site has no route")
}
