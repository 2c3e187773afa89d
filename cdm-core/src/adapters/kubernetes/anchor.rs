//! A site's anchor, which owns all objects of the site in the cluster, and the tombstone that replaces it.
//!
//! Both are ConfigMaps with the same name, so only one of them can exist. Objects that a delayed call creates after the
//! release belong to a deleted anchor, and Kubernetes garbage-collects them; a call that reads again finds the
//! tombstone.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;

use super::api::Session;
use super::failure::Failure;
use super::manifest::{self, RouteObject};
use super::names::{
    self, CDM, COMPONENT, MANAGED_BY, annotation, is_deleting, label, labels, name, of_site, own_uid,
    site_of, texts,
};
use super::settings::KubernetesSettings;
use crate::domain::{Hostnames, Uid};
use crate::ports::ErrorKind;

const ANCHOR: &str = "anchor";
const TOMBSTONE: &str = "tombstone";
/// The annotation with the URL of the site.
const ADDRESS: &str = "cdm/address";
/// The annotation with the time of the release, in milliseconds, by the clock of the releasing process.
const RELEASED: &str = "cdm/released";
/// How often to retry while another process creates an anchor concurrently.
const MAX_ATTEMPTS: usize = 8;
/// How long a tombstone is kept: much longer than any delayed call can still be in progress.
const TOMBSTONE_RETENTION: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) uid: Uid,
    /// The URL of the site: the scheme and the canonical hostname.
    pub(super) address: String,
    own_uid: String,
}

impl Anchor {
    /// Returns the owner reference of the anchor's objects.
    pub(super) fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: of_site(self.uid),
            uid: self.own_uid.clone(),
            ..OwnerReference::default()
        }
    }

    fn read(uid: Uid, object: &ConfigMap) -> Result<Self, Failure> {
        let object = &object.metadata;
        match label(object, COMPONENT).filter(|_| site_of(object) == Some(uid)) {
            Some(ANCHOR) if is_deleting(object) => {
                Err(Failure::new(ErrorKind::Unavailable, "the site's anchor is being deleted"))
            }
            Some(ANCHOR) => {
                let address = annotation(object, ADDRESS).unwrap_or_default().to_owned();
                Ok(Self { uid, address, own_uid: own_uid(object).to_owned() })
            }
            Some(TOMBSTONE) => Err(Failure::new(ErrorKind::Gone, "the uid was released")),
            Some(_) | None => Err(Failure::new(
                ErrorKind::Foreign,
                "a ConfigMap of another owner has the name of the site's anchor",
            )),
        }
    }
}

pub(super) fn address(settings: &KubernetesSettings, hostnames: &Hostnames) -> String {
    format!("{}://{}", settings.scheme.as_str(), hostnames.canonical())
}

/// Returns the site's anchor; `None` if the site has none.
pub(super) async fn find(session: &Session<'_>, uid: Uid) -> Result<Option<Anchor>, Failure> {
    let object = session.get::<ConfigMap>(&of_site(uid)).await?;
    object.map(|object| Anchor::read(uid, &object)).transpose()
}

/// Returns the anchors of the sites that have one.
pub(super) async fn of_many(session: &Session<'_>, uids: &[Uid]) -> Result<Vec<Anchor>, Failure> {
    /// The maximum number of uids in one query.
    const MAX_UIDS: usize = 64;
    let mut anchors = Vec::new();
    for chunk in uids.chunks(MAX_UIDS) {
        let texts: Vec<String> = chunk.iter().map(ToString::to_string).collect();
        let anchors_of =
            format!("{MANAGED_BY}={CDM},{COMPONENT}={ANCHOR},{} in ({})", names::UID, texts.join(","));
        let found: Vec<ConfigMap> = session.list(&anchors_of).await?;
        let read = |object: &ConfigMap| Anchor::read(site_of(&object.metadata)?, object).ok();
        anchors.extend(found.iter().filter_map(read));
    }
    Ok(anchors)
}

/// Returns the site's anchor, creating it if it is missing.
pub(super) async fn ensure(session: &Session<'_>, uid: Uid, address: &str) -> Result<Anchor, Failure> {
    if let Some(anchor) = find(session, uid).await? {
        return Ok(anchor);
    }
    match session.create::<ConfigMap>(&config_map(ANCHOR, uid, (ADDRESS, address))).await {
        Ok(object) => Anchor::read(uid, &object),
        Err(failure) if failure.kind == ErrorKind::Exists => find(session, uid).await?.ok_or_else(|| {
            Failure::new(ErrorKind::Unavailable, "the site's anchor was created and deleted at the same time")
        }),
        // An anchor alone has no visible effect, and the next call finds it.
        Err(failure) => Err(Failure { maybe_applied: false, ..failure }),
    }
}

/// Replaces the anchor by the tombstone, and deletes the site's objects.
pub(super) async fn release(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    uid: Uid,
) -> Result<(), Failure> {
    put_tombstone(session, uid).await?;
    for object in session.list::<Job>(&names::label_selector(super::job::JOB, uid)).await? {
        let object = object.metadata;
        session.delete::<Job>(name(&object), Some(own_uid(&object))).await?;
        // A job that is still suspended has no annotation with the uid of its Secret yet.
        session.delete::<Secret>(name(&object), annotation(&object, names::SECRET)).await?;
    }
    let (kind, name) = (&settings.route, of_site(uid));
    if let Some(route) = RouteObject::get(session, kind, &name).await?
        && site_of(route.metadata()) == Some(uid)
    {
        let own = own_uid(route.metadata());
        manifest::delete(session, kind, &name, own).await?;
        // The controller of a load balancer may have finalizers to process before the object is deleted.
        let remaining = RouteObject::get(session, kind, &name).await?;
        if remaining.is_some_and(|remaining| own_uid(remaining.metadata()) == own) {
            return Err(Failure::new(ErrorKind::Unavailable, "the site's route is being deleted")
                .into_maybe_applied());
        }
    }
    Ok(())
}

async fn put_tombstone(session: &Session<'_>, uid: Uid) -> Result<(), Failure> {
    let name = of_site(uid);
    let now = session.clock().wall().millis().to_string();
    for _ in 0..MAX_ATTEMPTS {
        match session.create::<ConfigMap>(&config_map(TOMBSTONE, uid, (RELEASED, &now))).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.kind == ErrorKind::Exists => {}
            Err(failure) => return Err(failure),
        }
        let Some(existing) = session.get::<ConfigMap>(&name).await? else { continue };
        match Anchor::read(uid, &existing) {
            Err(failure) if failure.kind == ErrorKind::Gone => return Ok(()),
            Ok(_) => session.delete::<ConfigMap>(&name, Some(own_uid(&existing.metadata))).await?,
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(ErrorKind::Unavailable, "the site's anchor was created and deleted at the same time")
        .into_maybe_applied())
}

/// Deletes tombstones that are older than their retention period.
pub(super) async fn sweep(session: &Session<'_>) -> Result<(), Failure> {
    let now = session.clock().wall();
    let tombstones = format!("{MANAGED_BY}={CDM},{COMPONENT}={TOMBSTONE}");
    for object in session.list::<ConfigMap>(&tombstones).await? {
        let object = object.metadata;
        let released =
            annotation(&object, RELEASED).and_then(|millis| millis.parse().ok()).unwrap_or(u64::MAX);
        if now.since(crate::domain::Timestamp::from_millis(released)) >= TOMBSTONE_RETENTION {
            session.delete::<ConfigMap>(name(&object), Some(own_uid(&object))).await?;
        }
    }
    Ok(())
}

fn config_map(component: &str, uid: Uid, annotation: (&str, &str)) -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some(of_site(uid)),
        labels: Some(labels(component, uid, None)),
        annotations: Some(texts([annotation])),
        ..ObjectMeta::default()
    };
    ConfigMap { metadata, ..ConfigMap::default() }
}
