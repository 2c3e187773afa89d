//! Which service is the canary: one key of one ConfigMap, changed only from the version that was seen.

use serde_json::{Map, Value, json};

use super::api::{CONFIG_MAPS, Patch, Session};
use super::failure::Failure;
use super::names::{self, CDM, FENCE, MANAGED_BY, text};
use super::settings::KubernetesSettings;
use super::{pods, service};
use crate::domain::{Color, Digest};
use crate::ports::{CallContext, Canary, CanaryVersion, ErrorKind};

/// The annotation that makes every write one of its own, also where it says what was said before.
const WRITE: &str = "cdm/write";

/// The canary service of a platform on which nobody has chosen one.
const INITIAL: Color = Color::Blue;

/// The ConfigMap as it is, and what its key says.
struct Seen {
    version: String,
    /// What the key holds; `None` where there is no such key.
    fields: Option<Map<String, Value>>,
}

async fn look(session: &Session<'_>, settings: &KubernetesSettings) -> Result<Option<Seen>, Failure> {
    let Some(object) = session.get(CONFIG_MAPS, &settings.canary_config_map).await? else { return Ok(None) };
    let version = text(&object, "/metadata/resourceVersion").unwrap_or_default().to_owned();
    let Some(text) = object.get("data").and_then(|data| data.get(&settings.canary_key)?.as_str()) else {
        return Ok(Some(Seen { version, fields: None }));
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Some(Seen { version, fields: Some(fields) })),
        Ok(_) | Err(_) => {
            let message = format!("the canary's `{}` is no JSON object", settings.canary_key);
            Err(Failure::new(ErrorKind::Invalid, message))
        }
    }
}

pub(super) async fn read(
    session: &Session<'_>,
    settings: &KubernetesSettings,
) -> Result<Option<Canary>, Failure> {
    let Some(Seen { version, fields: Some(fields) }) = look(session, settings).await? else {
        return Ok(None);
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let color = text("selector").and_then(|text| Color::parse(text).ok()).ok_or_else(|| {
        let message = format!("the canary's `{}` names neither `blue` nor `green`", settings.canary_key);
        Failure::new(ErrorKind::Invalid, message)
    })?;
    let digest = text("image").and_then(digest_of);
    Ok(Some(Canary { color, digest, version: CanaryVersion(version) }))
}

pub(super) async fn set(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    call: &CallContext,
    expect: Option<&CanaryVersion>,
    (color, digest): (Color, Option<Digest>),
) -> Result<(), Failure> {
    let other = || Failure::new(ErrorKind::Conflict, "the canary has another version");
    let seen = look(session, settings).await?;
    let held = seen.as_ref().and_then(|seen| seen.fields.is_some().then_some(&seen.version));
    if held != expect.map(|version| &version.0) {
        return Err(other());
    }
    let mut fields = seen.as_ref().and_then(|seen| seen.fields.clone()).unwrap_or_default();
    fields.insert("selector".to_owned(), json!(color.as_str()));
    match digest {
        Some(digest) => fields.insert("image".to_owned(), json!(format!("{}@{digest}", settings.image))),
        None => fields.remove("image"),
    };
    let data = json!({ settings.canary_key.as_str(): Value::Object(fields).to_string() });
    let annotations = json!({ FENCE: call.fence.to_string(), WRITE: call.write.0.to_string() });
    let written = match &seen {
        Some(seen) => {
            // The server compares the version that a patch names.
            let patch = json!({
                "metadata": { "resourceVersion": seen.version, "annotations": annotations },
                "data": data,
            });
            session.patch(CONFIG_MAPS, &settings.canary_config_map, Patch::Merge(&patch)).await
        }
        None => session.create(CONFIG_MAPS, &object(settings, annotations, data)).await,
    };
    match written {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.kind, ErrorKind::Exists | ErrorKind::NotFound) => Err(other()),
        Err(failure) => Err(failure),
    }
}

/// Writes the initial state where there is none: blue, with the image that its Deployment has. A ConfigMap without the key,
/// as earlier versions made it, gets the key.
pub(super) async fn ensure(session: &Session<'_>, settings: &KubernetesSettings) -> Result<(), Failure> {
    let seen = look(session, settings).await?;
    if seen.as_ref().is_some_and(|seen| seen.fields.is_some()) {
        return Ok(());
    }
    let deployment = service::deployment(session, settings, INITIAL).await?;
    let pod_spec = deployment.pointer("/spec/template/spec");
    let image = pod_spec.and_then(|pod_spec| pods::image(pod_spec, &settings.container));
    let mut fields = Map::from_iter([("selector".to_owned(), json!(INITIAL.as_str()))]);
    fields.extend(image.map(|image| ("image".to_owned(), json!(image))));
    let data = json!({ settings.canary_key.as_str(): Value::Object(fields).to_string() });
    let written = match seen {
        Some(Seen { version, .. }) => {
            let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
            session.patch(CONFIG_MAPS, &settings.canary_config_map, Patch::Merge(&patch)).await
        }
        None => session.create(CONFIG_MAPS, &object(settings, json!({}), data)).await,
    };
    match written {
        // Another process was faster, and has written what holds.
        Err(failure) if !matches!(failure.kind, ErrorKind::Exists | ErrorKind::Conflict) => Err(failure),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn object(settings: &KubernetesSettings, annotations: Value, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": settings.canary_config_map,
            "labels": { MANAGED_BY: CDM, names::COMPONENT: "canary" },
            "annotations": annotations,
        },
        "data": data,
    })
}

/// The digest that an image names; `None` for a tag.
pub(super) fn digest_of(image: &str) -> Option<Digest> {
    Digest::parse(image.rsplit_once('@')?.1).ok()
}
