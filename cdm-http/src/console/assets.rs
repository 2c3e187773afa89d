//! The files that pages need, inside the program. Their addresses have their content's hash, so that browsers may keep
//! them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::error::Refusal;

type File = (&'static str, &'static str, &'static [u8]);

const FILES: [File; 4] = [
    ("console.css", "text/css; charset=utf-8", include_bytes!("../../assets/console.css")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/htmx.min.js")),
    ("hx-sse.min.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/hx-sse.min.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
];

/// Each file's place, with the first characters of its hash.
static PLACES: LazyLock<[String; 4]> = LazyLock::new(|| {
    FILES.map(|(name, _, content)| {
        let hash = Sha256::digest(content);
        let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{short}-{name}")
    })
});

/// The address of a file.
pub(crate) fn of(name: &str) -> String {
    let index = FILES.iter().position(|(known, ..)| *known == name);
    let place = index.and_then(|index| PLACES.get(index)).map_or(name, String::as_str);
    format!("/console/assets/{place}")
}

/// Sends a file.
pub(crate) async fn file(Path(place): Path<String>) -> Result<Response, Refusal> {
    let index = PLACES.iter().position(|known| *known == place);
    let Some((_, kind, content)) = index.and_then(|index| FILES.get(index)) else {
        return Err(Refusal::not_found("the file"));
    };
    let headers =
        [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, *content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was vendored is what the lock file names, byte by byte.
    #[test]
    fn vendored_files_are_as_they_were_published() {
        let lock = include_str!("../../assets/VENDOR.lock");
        let rows = lock.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut seen = 0;
        for row in rows {
            let (hash, name) = row.split_once("  ").expect("a hash and a name");
            let (_, _, content) = FILES.iter().find(|(known, ..)| *known == name).expect("a file");
            let found: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, hash, "{name}");
            seen += 1;
        }
        assert_eq!(seen, 2);
    }
}
