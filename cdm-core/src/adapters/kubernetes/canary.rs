//! The canary service: one key of one ConfigMap, changed only if its version is the one that was read.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Patch;
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use super::api::Session;
use super::failure::Failure;
use super::names::{CDM, COMPONENT, FENCE, MANAGED_BY, Texts, texts};
use super::pods::{self, digest_of};
use super::service;
use super::settings::KubernetesSettings;
use crate::domain::{Color, Digest};
use crate::ports::{CallContext, Canary, CanaryVersion, ErrorKind};

/// The annotation that makes every write a change, even if it repeats the stored value.
const WRITE: &str = "cdm/write";

/// The canary service until one is chosen.
const INITIAL: Color = Color::Blue;

/// The version of the ConfigMap and the value of its key.
struct StoredCanary {
    version: String,
    /// The value of the key; `None` if the ConfigMap has no such key.
    fields: Option<Map<String, Value>>,
}

async fn read_stored(
    session: &Session<'_>,
    settings: &KubernetesSettings,
) -> Result<Option<StoredCanary>, Failure> {
    let Some(object) = session.get::<ConfigMap>(&settings.canary_config_map).await? else { return Ok(None) };
    let version = object.metadata.resource_version.unwrap_or_default();
    let Some(text) = object.data.as_ref().and_then(|data| data.get(&settings.canary_key)) else {
        return Ok(Some(StoredCanary { version, fields: None }));
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Some(StoredCanary { version, fields: Some(fields) })),
        Ok(_) | Err(_) => {
            let message = format!("the canary's `{}` is not a JSON object", settings.canary_key);
            Err(Failure::new(ErrorKind::Invalid, message))
        }
    }
}

pub(super) async fn read(
    session: &Session<'_>,
    settings: &KubernetesSettings,
) -> Result<Option<Canary>, Failure> {
    let Some(StoredCanary { version, fields: Some(fields) }) = read_stored(session, settings).await? else {
        return Ok(None);
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let color = text("selector").and_then(|text| Color::parse(text).ok()).ok_or_else(|| {
        let message =
            format!("the `selector` in the canary's `{}` is neither `blue` nor `green`", settings.canary_key);
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
    let other = || Failure::new(ErrorKind::Conflict, "the canary was changed since it was read");
    let stored = read_stored(session, settings).await?;
    let current = stored.as_ref().and_then(|stored| stored.fields.is_some().then_some(&stored.version));
    if current != expect.map(|version| &version.0) {
        return Err(other());
    }
    let mut fields = stored.as_ref().and_then(|stored| stored.fields.clone()).unwrap_or_default();
    fields.insert("selector".to_owned(), json!(color.as_str()));
    match digest {
        Some(digest) => fields.insert("image".to_owned(), json!(format!("{}@{digest}", settings.image))),
        None => fields.remove("image"),
    };
    let annotations = texts([(FENCE, &call.fence.to_string()), (WRITE, &call.write.0.to_string())]);
    let written: Result<ConfigMap, Failure> = match &stored {
        Some(stored) => {
            // The server rejects a patch whose version is not the current one.
            let patch = json!({
                "metadata": { "resourceVersion": stored.version, "annotations": annotations },
                "data": data(settings, fields),
            });
            session.patch(&settings.canary_config_map, Patch::Merge(patch)).await
        }
        None => session.create(&object(settings, annotations, fields)).await,
    };
    match written {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.kind, ErrorKind::Exists | ErrorKind::NotFound) => Err(other()),
        Err(failure) => Err(failure),
    }
}

/// Writes the initial state if it is missing: blue, with the image of its Deployment. Adds the key to a ConfigMap
/// without the key, as earlier versions created it.
pub(super) async fn ensure(session: &Session<'_>, settings: &KubernetesSettings) -> Result<(), Failure> {
    let stored = read_stored(session, settings).await?;
    if stored.as_ref().is_some_and(|stored| stored.fields.is_some()) {
        return Ok(());
    }
    let workload = service::workload(session, settings, INITIAL).await?;
    let image = pods::template_image(&workload.template, &settings.container);
    let mut fields = Map::from_iter([("selector".to_owned(), json!(INITIAL.as_str()))]);
    fields.extend(image.map(|image| ("image".to_owned(), json!(image))));
    let written: Result<ConfigMap, Failure> = match stored {
        Some(StoredCanary { version, .. }) => {
            let data = data(settings, fields);
            let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
            session.patch(&settings.canary_config_map, Patch::Merge(patch)).await
        }
        None => session.create(&object(settings, Texts::new(), fields)).await,
    };
    match written {
        // Another process has created or changed the ConfigMap first.
        Err(failure) if !matches!(failure.kind, ErrorKind::Exists | ErrorKind::Conflict) => Err(failure),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn data(settings: &KubernetesSettings, fields: Map<String, Value>) -> Texts {
    texts([(&settings.canary_key, &Value::Object(fields).to_string())])
}

fn object(settings: &KubernetesSettings, annotations: Texts, fields: Map<String, Value>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(settings.canary_config_map.clone()),
            labels: Some(texts([(MANAGED_BY, CDM), (COMPONENT, "canary")])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(data(settings, fields)),
        ..ConfigMap::default()
    }
}
