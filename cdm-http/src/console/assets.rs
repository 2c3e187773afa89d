//! The static files of the pages, which are part of the binary. Their URLs contain a hash of the content, so browsers
//! may cache the files without a time limit.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// Name, content type and content.
type File = (&'static str, &'static str, &'static [u8]);

const FILES: [File; 4] = [
    ("console.css", "text/css; charset=utf-8", include_bytes!("../../assets/console.css")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/htmx.min.js")),
    ("hx-sse.min.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/hx-sse.min.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
];

/// The last path segment of each file: the first twelve hexadecimal digits of its SHA-256, and its name.
static PATHS: LazyLock<[String; 4]> = LazyLock::new(|| {
    FILES.map(|(name, _, content)| {
        let hash = Sha256::digest(content);
        format!("{}-{name}", hex::encode(&hash[..6]))
    })
});

/// Returns the URL of a file.
pub(crate) fn url(name: &str) -> String {
    let index = FILES.iter().position(|(known, ..)| *known == name);
    let path = index.and_then(|index| PATHS.get(index)).map_or(name, String::as_str);
    format!("/console/assets/{path}")
}

/// Returns a file, with headers that let browsers cache it for a year.
pub(crate) async fn show(Path(path): Path<String>) -> Result<Response, ApiError> {
    let index = PATHS.iter().position(|known| *known == path);
    let Some((_, kind, content)) = index.and_then(|index| FILES.get(index)) else {
        return Err(ApiError::not_found("the file"));
    };
    let headers =
        [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, *content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendored_files_match_the_hashes_of_the_lock_file() {
        let lock = include_str!("../../assets/VENDOR.lock");
        let rows = lock.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut checked = 0;
        for row in rows {
            let (hash, name) = row.split_once("  ").expect("a hash and a name");
            let (_, _, content) = FILES.iter().find(|(known, ..)| *known == name).expect("a file");
            assert_eq!(hex::encode(Sha256::digest(content)), hash, "{name}");
            checked += 1;
        }
        assert_eq!(checked, 2);
    }
}
