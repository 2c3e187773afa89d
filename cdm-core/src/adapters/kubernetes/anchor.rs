//! A site's anchor, which owns whatever the site has in the cluster, and the tombstone that takes its name.
//!
//! Both are the ConfigMap of one name, so that there is either the one or the other. What a late call still creates
//! belongs to an anchor that is gone, and the cluster collects it; a call that looks anew finds the tombstone.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::{CONFIG_MAPS, JOBS, SECRETS, Session};
use super::failure::Failure;
use super::names::{
    self, CDM, COMPONENT, MANAGED_BY, annotation, label, labels, of_site, own_uid, site_of, text,
};
use super::pods;
use super::settings::KubernetesSettings;
use super::shape;
use crate::domain::{Hostnames, Uid};
use crate::ports::ErrorKind;

const ANCHOR: &str = "anchor";
const TOMBSTONE: &str = "tombstone";
/// The annotation with the site's address.
const ADDRESS: &str = "cdm/address";
/// The annotation with the moment of a release, by the clock of who released.
const RELEASED: &str = "cdm/released";
/// How often a name is taken from someone who takes it at the same time.
const TRIES: usize = 8;
/// How long a tombstone stands: much longer than any call that was late could still be under way.
const STANDS: Duration = Duration::from_secs(24 * 3600);

/// A site's anchor.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) uid: Uid,
    /// `https://` and the canonical hostname.
    pub(super) address: String,
    own_uid: String,
}

impl Anchor {
    /// What makes an object the anchor's.
    pub(super) fn owner(&self) -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": of_site(self.uid), "uid": self.own_uid })
    }

    fn read(uid: Uid, object: &Value) -> Result<Self, Failure> {
        match label(object, COMPONENT).filter(|_| site_of(object) == Some(uid)) {
            Some(ANCHOR) if pods::is_going(object) => {
                Err(Failure::new(ErrorKind::Unavailable, "the site's anchor is being removed"))
            }
            Some(ANCHOR) => {
                let address = annotation(object, ADDRESS).unwrap_or_default().to_owned();
                Ok(Self { uid, address, own_uid: own_uid(object).to_owned() })
            }
            Some(TOMBSTONE) => Err(Failure::new(ErrorKind::Gone, "the uid was released")),
            Some(_) | None => Err(Failure::new(
                ErrorKind::Foreign,
                "someone else's ConfigMap has the name of the site's anchor",
            )),
        }
    }
}

/// The address of a site.
pub(super) fn address(settings: &KubernetesSettings, hostnames: &Hostnames) -> String {
    format!("{}://{}", settings.scheme.as_str(), hostnames.canonical())
}

/// The site's anchor; `None` where it has none.
pub(super) async fn find(session: &Session<'_>, uid: Uid) -> Result<Option<Anchor>, Failure> {
    let object = session.get(CONFIG_MAPS, &of_site(uid)).await?;
    object.map(|object| Anchor::read(uid, &object)).transpose()
}

/// The anchors of those that have one.
pub(super) async fn of_many(session: &Session<'_>, uids: &[Uid]) -> Result<Vec<Anchor>, Failure> {
    /// How many uids a query has room for.
    const ROOM: usize = 64;
    let mut anchors = Vec::new();
    for some in uids.chunks(ROOM) {
        let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
        let anchors_of =
            format!("{MANAGED_BY}={CDM},{COMPONENT}={ANCHOR},{} in ({})", names::UID, texts.join(","));
        let found = session.list(CONFIG_MAPS, &anchors_of).await?;
        anchors.extend(found.iter().filter_map(|object| Anchor::read(site_of(object)?, object).ok()));
    }
    Ok(anchors)
}

/// The site's anchor, which is made where there is none.
pub(super) async fn ensure(session: &Session<'_>, uid: Uid, address: &str) -> Result<Anchor, Failure> {
    if let Some(anchor) = find(session, uid).await? {
        return Ok(anchor);
    }
    match session.create(CONFIG_MAPS, &config_map(ANCHOR, uid, &json!({ ADDRESS: address }))).await {
        Ok(object) => Anchor::read(uid, &object),
        Err(failure) if failure.kind == ErrorKind::Exists => find(session, uid)
            .await?
            .ok_or_else(|| Failure::new(ErrorKind::Unavailable, "the site's anchor comes and goes")),
        // An anchor alone is nothing that anybody sees, and the next call finds it.
        Err(failure) => Err(Failure { open: false, ..failure }),
    }
}

/// Puts the tombstone in the anchor's place, and removes what the site has.
pub(super) async fn release(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    uid: Uid,
) -> Result<(), Failure> {
    close(session, uid).await?;
    let resource = shape::resource(&settings.route);
    for object in session.list(JOBS, &names::color(super::job::JOB, uid)).await? {
        let name = text(&object, "/metadata/name").unwrap_or_default();
        session.delete(JOBS, name, Some(own_uid(&object))).await?;
        // One that is still asleep does not say yet which Secret is its own.
        session.delete(SECRETS, name, annotation(&object, super::jobs::SECRET)).await?;
    }
    let name = of_site(uid);
    if let Some(object) = session.get(resource, &name).await?
        && site_of(&object) == Some(uid)
    {
        session.delete(resource, &name, Some(own_uid(&object))).await?;
        // A load balancer's controller may have something to take down before the object may go.
        if session.get(resource, &name).await?.is_some_and(|left| own_uid(&left) == own_uid(&object)) {
            return Err(Failure::new(ErrorKind::Unavailable, "the site's route is being removed").opened());
        }
    }
    Ok(())
}

async fn close(session: &Session<'_>, uid: Uid) -> Result<(), Failure> {
    let name = of_site(uid);
    let now = json!({ RELEASED: session.clock().wall().millis().to_string() });
    for _ in 0..TRIES {
        match session.create(CONFIG_MAPS, &config_map(TOMBSTONE, uid, &now)).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.kind == ErrorKind::Exists => {}
            Err(failure) => return Err(failure),
        }
        let Some(held) = session.get(CONFIG_MAPS, &name).await? else { continue };
        match Anchor::read(uid, &held) {
            Err(failure) if failure.kind == ErrorKind::Gone => return Ok(()),
            Ok(_) => session.delete(CONFIG_MAPS, &name, Some(own_uid(&held))).await?,
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(ErrorKind::Unavailable, "the site's anchor comes and goes").opened())
}

/// Removes tombstones that have stood long enough.
pub(super) async fn sweep(session: &Session<'_>) -> Result<(), Failure> {
    let now = session.clock().wall();
    let tombstones = format!("{MANAGED_BY}={CDM},{COMPONENT}={TOMBSTONE}");
    for object in session.list(CONFIG_MAPS, &tombstones).await? {
        let released =
            annotation(&object, RELEASED).and_then(|millis| millis.parse().ok()).unwrap_or(u64::MAX);
        if now.since(crate::domain::Timestamp::from_millis(released)) >= STANDS {
            let name = text(&object, "/metadata/name").unwrap_or_default();
            session.delete(CONFIG_MAPS, name, Some(own_uid(&object))).await?;
        }
    }
    Ok(())
}

fn config_map(component: &str, uid: Uid, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": of_site(uid),
            "labels": labels(component, uid, None),
            "annotations": annotations,
        },
    })
}
