//! Rotation of the key of the secrets. A crash at any point loses neither a key nor a value.
//!
//! The next key is written to `key.next` before any value is sealed with it. After all values are sealed again, one
//! rename replaces the present key. Opening the secrets completes an interrupted rotation. A value has no key ID: it
//! was sealed with the key that decrypts it.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::Row;

use super::super::File;
use super::super::fs::{run_blocking, sync_parent};
use super::super::seal::{KeyError, Seal, create_key, read_key};
use super::{EmbeddedSecrets, PROOF, SecretsError};

/// How many values one transaction seals again.
const PAGE: i64 = 64;

/// The last completed step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The next key was created.
    KeyCreated,
    /// A page of values was sealed with the next key.
    Resealed,
    /// All values and the proof were sealed with the next key.
    Proven,
    /// The next key has replaced the present one.
    Renamed,
}

/// Called after every step. An error stops the rotation, as a crash would in tests.
type AfterStep<'a> = &'a mut (dyn FnMut(Step) -> Result<(), SecretsError> + Send);

impl EmbeddedSecrets {
    /// Seals every value with a new key, which replaces the key in the file at `key_path`. Returns the number of
    /// values. No other process may use the secrets, since it would continue with the old key. `is_alone` returns
    /// whether no other process does; it is called at a point after which no other process can start.
    ///
    /// # Errors
    /// [`SecretsError::InUse`] when another process uses the secrets; otherwise the error that prevented writing a key
    /// or a value. A second call continues the interrupted rotation, and so does the next process that opens the
    /// secrets.
    pub async fn rotate_key(
        file: &File,
        key_path: &Path,
        is_alone: impl Fn() -> bool + Send,
    ) -> Result<u64, SecretsError> {
        begin(file, key_path, is_alone).await?;
        Ok(finish(file, key_path, &mut |_| Ok(())).await?.unwrap_or_default())
    }
}

/// Completes a rotation that was started; `None` if there was none.
pub(super) async fn finish_interrupted(file: &File, key_path: &Path) -> Result<Option<u64>, SecretsError> {
    finish(file, key_path, &mut |_| Ok(())).await
}

pub(super) fn has_next_key(key_path: &Path) -> Result<bool, KeyError> {
    let next = next_path(key_path);
    next.try_exists().map_err(|source| KeyError::File { path: next, source })
}

fn next_path(key_path: &Path) -> PathBuf {
    let mut next = key_path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

/// Creates the next key, unless an interrupted rotation has left one.
async fn begin(file: &File, key_path: &Path, is_alone: impl Fn() -> bool + Send) -> Result<(), SecretsError> {
    // A process that opens the secrets reads the keys under the same lock, after it has registered as live.
    let lock = file.begin().await?;
    if !is_alone() {
        return Err(SecretsError::InUse);
    }
    if read_key(key_path)?.is_none() {
        return Err(KeyError::Missing { path: key_path.to_owned() }.into());
    }
    if !has_next_key(key_path)? {
        create_key(&next_path(key_path))?;
    }
    lock.rollback().await;
    Ok(())
}

async fn finish(
    file: &File,
    key_path: &Path,
    after_step: AfterStep<'_>,
) -> Result<Option<u64>, SecretsError> {
    let next_path = next_path(key_path);
    let Some(next) = read_key(&next_path)? else { return Ok(None) };
    after_step(Step::KeyCreated)?;
    let next = Seal::new(&next);
    let present = read_key(key_path)?.map(|key| Seal::new(&key));
    let (mut after, mut count) = (String::new(), 0);
    while let Some(last) = reseal(file, key_path, &after, present.as_ref(), &next, &mut count).await? {
        after = last;
        after_step(Step::Resealed)?;
    }
    let mut tx = file.begin().await?;
    let proof = next.seal(PROOF, &[]).map_err(KeyError::Chance)?;
    let put = sqlx::query("INSERT OR REPLACE INTO secrets_key (only, proof) VALUES (1, ?)").bind(proof);
    put.execute(&mut *tx).await?;
    tx.commit().await?;
    after_step(Step::Proven)?;
    let (from, to) = (next_path.clone(), key_path.to_owned());
    let renamed = run_blocking(move || match fs::rename(&from, &to) {
        // Another process has finished the same rotation.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(&to),
    });
    renamed.await.map_err(|source| KeyError::File { path: next_path, source })?;
    after_step(Step::Renamed)?;
    Ok(Some(count))
}

/// Seals a page of values after a name with the next key, and returns the name of the last one; `None` if there was
/// none.
async fn reseal(
    file: &File,
    key_path: &Path,
    after: &str,
    present: Option<&Seal>,
    next: &Seal,
    count: &mut u64,
) -> Result<Option<String>, SecretsError> {
    let mut tx = file.begin().await?;
    let rows = sqlx::query(
        "SELECT name, sealed FROM secrets WHERE name > ? AND sealed IS NOT NULL ORDER BY name LIMIT ?",
    );
    let rows = rows.bind(after).bind(PAGE).fetch_all(&mut *tx).await?;
    let mut last = None;
    for row in rows {
        let (name, sealed): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        *count += 1;
        if next.open(&name, &sealed).is_none() {
            let plain = present.and_then(|present| present.open(&name, &sealed));
            let plain = plain.ok_or_else(|| KeyError::Wrong { path: key_path.to_owned() })?;
            let sealed = next.seal(&name, &plain).map_err(KeyError::Chance)?;
            let put = sqlx::query("UPDATE secrets SET sealed = ? WHERE name = ?").bind(sealed).bind(&name);
            put.execute(&mut *tx).await?;
        }
        last = Some(name);
    }
    if last.is_some() {
        tx.commit().await?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::adapters::{OsIds, SystemClock};
    use crate::domain::{Epoch, Fence, SecretKind, SecretName};
    use crate::ports::{CallContext, Clock, Cms, Credentials, Entropy, Outcome, SecretStore, StoredSecret};

    struct Fixture {
        dir: tempfile::TempDir,
        file: File,
        clock: SystemClock,
        ids: OsIds,
    }

    impl Fixture {
        async fn new() -> Self {
            let dir = tempfile::TempDir::new().unwrap();
            let file = File::open(&dir.path().join("cdm.db")).await.unwrap();
            Self { dir, file, clock: SystemClock::new(), ids: OsIds::new().unwrap() }
        }

        fn key(&self) -> PathBuf {
            self.dir.path().join("key")
        }

        async fn open(&self) -> EmbeddedSecrets {
            EmbeddedSecrets::open(self.file.clone(), &self.key(), Arc::new(self.clock)).await.unwrap()
        }

        fn call(&self) -> CallContext {
            let deadline = self.clock.monotonic().after(Duration::from_secs(30));
            CallContext { deadline, write: self.ids.write(), fence: Fence::new(1, Epoch(1)) }
        }

        async fn fill(&self, count: usize) -> Vec<(SecretName, Credentials)> {
            let secrets = self.open().await;
            let mut values = Vec::new();
            for _ in 0..count {
                let name = SecretName { uid: self.ids.uid(self.clock.wall()), kind: SecretKind::Cms };
                let value = Credentials::Cms(Cms {
                    username: "admin".to_owned(),
                    password: self.ids.password(),
                    email: "admin@example.test".to_owned(),
                });
                assert_eq!(secrets.create(&self.call(), &name, &value).await, Outcome::Applied(()));
                values.push((name, value));
            }
            values
        }

        /// Asserts that every value can be read, and that only one key remains.
        async fn assert_readable(&self, values: &[(SecretName, Credentials)]) {
            let secrets = self.open().await;
            for (name, value) in values {
                let read = secrets.read(name).await.unwrap();
                assert!(matches!(read, Some(StoredSecret::Value(stored)) if stored == *value), "{name}");
            }
            secrets.check().await.unwrap();
            assert!(!next_path(&self.key()).exists(), "no next key remains");
        }

        fn bytes(&self) -> Vec<u8> {
            (*read_key(&self.key()).unwrap().unwrap()).to_vec()
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test is about the content of files")]
    async fn every_value_is_sealed_with_the_new_key() {
        let fixture = Fixture::new().await;
        let values = fixture.fill(70).await;
        let before = fixture.bytes();
        assert_eq!(EmbeddedSecrets::rotate_key(&fixture.file, &fixture.key(), || true).await.unwrap(), 70);
        assert_ne!(fixture.bytes(), before);
        fixture.assert_readable(&values).await;
        // The old key decrypts nothing any more.
        fs::remove_file(fixture.key()).unwrap();
        fs::write(fixture.key(), &before).unwrap();
        fs::set_permissions(fixture.key(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let opened =
            EmbeddedSecrets::open(fixture.file.clone(), &fixture.key(), Arc::new(fixture.clock)).await;
        assert!(matches!(opened, Err(SecretsError::Key(KeyError::Wrong { .. }))));
    }

    #[tokio::test]
    async fn a_rotation_is_rejected_while_another_process_runs() {
        let fixture = Fixture::new().await;
        let values = fixture.fill(1).await;
        let before = fixture.bytes();
        let refused = EmbeddedSecrets::rotate_key(&fixture.file, &fixture.key(), || false).await;
        assert!(matches!(refused, Err(SecretsError::InUse)));
        assert_eq!(fixture.bytes(), before);
        fixture.assert_readable(&values).await;
    }

    #[tokio::test]
    async fn a_crash_after_any_step_loses_nothing() {
        let mut reached = Vec::new();
        for crash in 0.. {
            let fixture = Fixture::new().await;
            let values = fixture.fill(130).await;
            let before = fixture.bytes();
            begin(&fixture.file, &fixture.key(), || true).await.unwrap();
            let mut steps = 0;
            let mut after_step = |step| {
                steps += 1;
                if steps <= crash {
                    return Ok(());
                }
                reached.push(step);
                Err(SecretsError::InUse)
            };
            let ended = finish(&fixture.file, &fixture.key(), &mut after_step).await;
            // Another process opens the secrets, and completes the rotation.
            fixture.assert_readable(&values).await;
            assert_ne!(fixture.bytes(), before, "the rotation was finished");
            if ended.is_ok() {
                break;
            }
            assert!(crash < 100, "the rotation does not end");
        }
        use Step::{KeyCreated, Proven, Renamed, Resealed};
        assert_eq!(reached, [KeyCreated, Resealed, Resealed, Resealed, Proven, Renamed]);
    }
}
