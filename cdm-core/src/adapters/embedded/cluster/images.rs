//! Declared properties of images, in place of a registry.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection};

use super::Inner;
use super::tables::damaged;
use crate::domain::{Digest, Theme};

/// When the pods of an image pass their readiness check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// As soon as they have started.
    #[default]
    Ready,
    /// Never, so every rollout of the image fails.
    Never,
}

/// The properties of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// When its pods become ready. Default: as soon as they have started.
    pub readiness: Readiness,
    /// The status code of its pods' responses to requests for sites: 200 for pages, any other for a failure. Default:
    /// 200.
    pub answers: u16,
    /// The themes in the image; `None` (the default) for every theme.
    pub themes: Option<Vec<Theme>>,
    /// How long a pod of the image takes to start; `None` (the default) uses
    /// [`pod_start`](super::LocalSettings::pod_start).
    pub start: Option<Duration>,
}

impl Default for ImageSpec {
    /// Returns an image that becomes ready, serves pages, and has every theme.
    fn default() -> Self {
        Self { readiness: Readiness::Ready, answers: 200, themes: None, start: None }
    }
}

impl ImageSpec {
    /// Returns whether a site on the image can activate the theme. An image that lists no themes has every theme.
    pub fn has_theme(&self, theme: &Theme) -> bool {
        self.themes.as_ref().is_none_or(|themes| themes.contains(theme))
    }
}

/// The images whose behavior was declared. An image that is missing here behaves as [`ImageSpec::default`].
#[derive(Debug, Default)]
pub(super) struct Images(HashMap<Digest, ImageSpec>);

#[derive(Serialize, Deserialize)]
struct SpecJson {
    ready: bool,
    answers: u16,
    themes: Option<Vec<String>>,
    start_ms: Option<u64>,
}

impl Images {
    pub(super) async fn load(conn: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query("SELECT digest, spec FROM cluster_images").fetch_all(conn).await?;
        let mut images = HashMap::new();
        for row in rows {
            let (digest, spec): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let digest = Digest::parse(&digest).map_err(|_| damaged("a digest"))?;
            images.insert(digest, parse(&spec).ok_or_else(|| damaged("an image"))?);
        }
        Ok(Self(images))
    }

    /// Returns the properties of an image; the default properties if it was not declared.
    pub(super) fn of(&self, digest: Digest) -> ImageSpec {
        self.0.get(&digest).cloned().unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<(Digest, ImageSpec)> {
        let mut all: Vec<_> = self.0.iter().map(|(digest, spec)| (*digest, spec.clone())).collect();
        all.sort_by_key(|(digest, _)| *digest);
        all
    }
}

/// Stores the properties of an image, and notifies the tasks of this process.
pub(super) async fn declare(inner: &Inner, digest: Digest, spec: &ImageSpec) -> Result<(), sqlx::Error> {
    let json = SpecJson {
        ready: spec.readiness == Readiness::Ready,
        answers: spec.answers,
        themes: spec.themes.as_ref().map(|themes| themes.iter().map(ToString::to_string).collect()),
        start_ms: spec.start.map(|start| u64::try_from(start.as_millis()).unwrap_or(u64::MAX)),
    };
    let text = serde_json::to_string(&json).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let mut tx = inner.file.begin().await?;
    sqlx::query("INSERT OR REPLACE INTO cluster_images (digest, spec) VALUES (?, ?)")
        .bind(digest.to_string())
        .bind(text)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    inner.reload_images().await?;
    inner.notify();
    Ok(())
}

fn parse(text: &str) -> Option<ImageSpec> {
    let json: SpecJson = serde_json::from_str(text).ok()?;
    let parsed =
        |themes: Vec<String>| themes.iter().map(|theme| Theme::parse(theme)).collect::<Result<_, _>>();
    let themes = json.themes.map(parsed).transpose().ok()?;
    Some(ImageSpec {
        readiness: if json.ready { Readiness::Ready } else { Readiness::Never },
        answers: json.answers,
        themes,
        start: json.start_ms.map(Duration::from_millis),
    })
}
