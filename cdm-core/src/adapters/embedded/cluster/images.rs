//! How images behave: what stands in for a registry on one machine.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Row, SqliteConnection};

use super::Inner;
use super::tables::damaged;
use crate::domain::{Digest, Theme};

/// Whether pods of an image pass their readiness check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Once they have started.
    #[default]
    Ready,
    /// Never.
    Never,
}

/// How an image behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Whether its pods get ready.
    pub readiness: Readiness,
    /// The status that its pods answer requests to sites with: 200 for pages, anything else for a failure.
    pub answers: u16,
    /// The themes in it; `None` for every theme.
    pub themes: Option<Vec<Theme>>,
    /// How long a pod of it takes to get ready; `None` for what the settings say.
    pub start: Option<Duration>,
}

impl Default for ImageSpec {
    /// Gets ready, answers pages, has every theme.
    fn default() -> Self {
        Self { readiness: Readiness::Ready, answers: 200, themes: None, start: None }
    }
}

impl ImageSpec {
    /// Whether a theme is in the image.
    pub fn has_theme(&self, theme: &Theme) -> bool {
        self.themes.as_ref().is_none_or(|themes| themes.contains(theme))
    }
}

/// The declared images.
#[derive(Debug, Default)]
pub(super) struct Images(HashMap<Digest, ImageSpec>);

#[derive(Serialize, Deserialize)]
struct SpecShape {
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

    /// How `digest` behaves.
    pub(super) fn of(&self, digest: Digest) -> ImageSpec {
        self.0.get(&digest).cloned().unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<(Digest, ImageSpec)> {
        let mut all: Vec<_> = self.0.iter().map(|(digest, spec)| (*digest, spec.clone())).collect();
        all.sort_by_key(|(digest, _)| *digest);
        all
    }
}

/// Writes down how an image behaves, and lets this process know.
pub(super) async fn declare(inner: &Inner, digest: Digest, spec: &ImageSpec) -> Result<(), sqlx::Error> {
    let shape = SpecShape {
        ready: spec.readiness == Readiness::Ready,
        answers: spec.answers,
        themes: spec.themes.as_ref().map(|themes| themes.iter().map(ToString::to_string).collect()),
        start_ms: spec.start.map(|start| u64::try_from(start.as_millis()).unwrap_or(u64::MAX)),
    };
    let text = serde_json::to_string(&shape).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let mut tx = inner.file.begin().await?;
    sqlx::query("INSERT OR REPLACE INTO cluster_images (digest, spec) VALUES (?, ?)")
        .bind(digest.to_string())
        .bind(text)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    inner.reload_images().await?;
    inner.tell();
    Ok(())
}

fn parse(text: &str) -> Option<ImageSpec> {
    let shape: SpecShape = serde_json::from_str(text).ok()?;
    let parsed =
        |themes: Vec<String>| themes.iter().map(|theme| Theme::parse(theme)).collect::<Result<_, _>>();
    let themes = shape.themes.map(parsed).transpose().ok()?;
    Some(ImageSpec {
        readiness: if shape.ready { Readiness::Ready } else { Readiness::Never },
        answers: shape.answers,
        themes,
        start: shape.start_ms.map(Duration::from_millis),
    })
}
