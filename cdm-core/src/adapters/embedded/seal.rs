//! Encrypts values with one key, each bound to its name, and stores the key in a file that only its owner may read.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use secrecy::zeroize::Zeroizing;

use super::fs::sync_parent;

/// The size of the key, in bytes.
const KEY_SIZE: usize = 32;
/// The size of the nonce, in bytes. The random nonce of an encryption precedes the encrypted value.
const NONCE_SIZE: usize = 24;

/// Why no key is available.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Other users may read the key.
    #[error(
        "`{}` can be read by other users (mode {mode:03o}); run `chmod 600` on it, and set new passwords \
         if another user may have read it",
        path.display()
    )]
    Exposed {
        /// The path of the key file.
        path: PathBuf,
        /// The mode of the key file.
        mode: u32,
    },
    /// The file is not a key.
    #[error("`{}` is not a key: its size is not {KEY_SIZE} bytes; restore the saved key", path.display())]
    Length {
        /// The path of the key file.
        path: PathBuf,
    },
    /// The key is missing, although stored values need it.
    #[error("`{}` is missing, but secrets are sealed with it; restore the saved key", path.display())]
    Missing {
        /// The path of the key file.
        path: PathBuf,
    },
    /// The key is not the one that the stored values are sealed with.
    #[error("`{}` is not the key that the secrets are sealed with; restore the saved key", path.display())]
    Wrong {
        /// The path of the key file.
        path: PathBuf,
    },
    /// The key cannot be read or created.
    #[error("`{}` cannot be read or created; grant the user of this process access to its directory", path.display())]
    File {
        /// The path of the key file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The operating system returns no random numbers.
    #[error("the operating system returns no random numbers, which keys and secrets need")]
    Chance(#[source] getrandom::Error),
}

/// The bytes of a key, which are erased from memory when dropped.
pub(super) type Key = Zeroizing<[u8; KEY_SIZE]>;

/// Encrypts and decrypts values with XChaCha20-Poly1305, whose nonces are long enough to be random.
pub(super) struct Seal(XChaCha20Poly1305);

impl Seal {
    pub(super) fn new(key: &Key) -> Self {
        Self(XChaCha20Poly1305::new((&**key).into()))
    }

    /// Encrypts `plain`; it can be decrypted only with the same `name`.
    ///
    /// # Errors
    /// When the operating system returns no random numbers.
    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
        let mut nonce = [0; NONCE_SIZE];
        getrandom::fill(&mut nonce)?;
        let payload = Payload { msg: plain, aad: name.as_bytes() };
        // The encryption fails only for values of 256 GiB and more.
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| getrandom::Error::UNEXPECTED)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts a value; `None` unless it was encrypted with this key and this name, and is unchanged.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, msg) = sealed.split_at_checked(NONCE_SIZE)?;
        let payload = Payload { msg, aad: name.as_bytes() };
        self.0.decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
    }
}

/// Reads the key from the file; `None` if the file does not exist.
pub(super) fn read_key(path: &Path) -> Result<Option<Key>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut key = Key::default();
    let complete = metadata.len() == KEY_SIZE as u64 && (&file).read_exact(&mut *key).is_ok();
    if complete { Ok(Some(key)) } else { Err(KeyError::Length { path: path.to_owned() }) }
}

/// Creates the key file atomically and flushes it to disk. If another process has created it first, returns that
/// process's key.
pub(super) fn create_key(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut key = Key::default();
    getrandom::fill(&mut *key).map_err(KeyError::Chance)?;
    let temporary = path.with_extension(format!("{:016x}.new", getrandom::u64().map_err(KeyError::Chance)?));
    let linked = write_key(&temporary, &key).and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
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
