//! Seals values under one key, each bound to its name, and keeps that key in a file that only its owner may read.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use secrecy::zeroize::Zeroizing;

use super::disk::sync_parent;

/// Bytes of the key.
const KEY: usize = 32;
/// Bytes of the random number that each sealing uses once; it stands before what was sealed.
const NONCE: usize = 24;

/// Why there is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others may read the key.
    #[error(
        "`{}` may be read by others than its owner (mode {mode:03o}); run `chmod 600` on it, and set new passwords \
         if someone may have read it",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is there is no key.
    #[error("`{}` is no key: it does not hold exactly {KEY} bytes; put the saved key back", path.display())]
    Length {
        /// The key file.
        path: PathBuf,
    },
    /// There is no key, but there are values that need it.
    #[error("`{}` is missing, and secrets are sealed with it; put the saved key back", path.display())]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// There is a key, but another one than the values need.
    #[error("`{}` is not the key that the secrets are sealed with; put the saved key back", path.display())]
    Wrong {
        /// The key file.
        path: PathBuf,
    },
    /// The key can be neither read nor made.
    #[error("`{}` can be neither read nor made; see that its directory is the user's own", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The machine gives no random numbers.
    #[error("the machine gives no random numbers; there can be no key and no secret without")]
    Chance(#[source] getrandom::Error),
}

/// The bytes of a key; wiped when dropped.
pub(super) type Key = Zeroizing<[u8; KEY]>;

/// Seals and unseals. XChaCha20-Poly1305, whose nonces are long enough to be drawn at random.
pub(super) struct Seal(XChaCha20Poly1305);

impl Seal {
    pub(super) fn new(key: &Key) -> Self {
        Self(XChaCha20Poly1305::new((&**key).into()))
    }

    /// Seals `plain` so that it unseals under `name` alone.
    ///
    /// # Errors
    /// When the machine gives no random numbers.
    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let payload = Payload { msg: plain, aad: name.as_bytes() };
        // Only 256 GiB and more are too much for it.
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| getrandom::Error::UNEXPECTED)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// What was sealed; `None` unless it was sealed with this key, under this name, and is whole.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, msg) = sealed.split_at_checked(NONCE)?;
        let payload = Payload { msg, aad: name.as_bytes() };
        self.0.decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
    }
}

/// The key in the file; `None` when there is no such file.
pub(super) fn read_key(path: &Path) -> Result<Option<Key>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let about = file.metadata().map_err(failed)?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut key = Key::default();
    let whole = about.len() == KEY as u64 && (&file).read_exact(&mut *key).is_ok();
    if whole { Ok(Some(key)) } else { Err(KeyError::Length { path: path.to_owned() }) }
}

/// Makes a key in the file, on the disk and whole, or not at all. When another process was faster, that one's key.
pub(super) fn make_key(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut key = Key::default();
    getrandom::fill(&mut *key).map_err(KeyError::Chance)?;
    let draft = path.with_extension(format!("{:016x}.new", getrandom::u64().map_err(KeyError::Chance)?));
    let linked = write_key(&draft, &key).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match linked {
        Ok(()) => {
            removed.and_then(|()| sync_parent(path)).map_err(failed)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_key(path)?.ok_or_else(|| failed(error))
        }
        Err(error) => Err(failed(error)),
    }
}

fn write_key(path: &Path, key: &Key) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&**key)?;
    file.sync_all()
}
