//! Rotates the key of the sealed secrets; a crash at any point loses neither a key nor a value.
//!
//! The next key is written to `key.next` before any value is sealed with it, and replaces the present key by one rename
//! after every value was sealed again. The next open of the secrets finishes an interrupted rotation. A value carries no
//! key id: the key that unseals it is the one that sealed it.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::Row;

use super::super::File;
use super::super::disk::{blocking, sync_parent};
use super::super::seal::{KeyError, Seal, make_key, read_key};
use super::{EmbeddedSecrets, PROOF, SecretsError};

/// Values that one transaction seals anew.
const PAGE: i64 = 64;

/// Where the rotation is, after something of it has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is a next key.
    Begun,
    /// Some more values are sealed with it.
    Resealed,
    /// All of them are, and so is the proof.
    Proven,
    /// It is the key.
    Renamed,
}

/// Goes on after a step, or not: a test ends the process there.
type Go<'a> = &'a mut (dyn FnMut(Step) -> Result<(), SecretsError> + Send);

impl EmbeddedSecrets {
    /// Seals every value with a fresh key, which takes the place of the one in the file at `key_path`; returns how many
    /// there are. No other process may be at work on the secrets, since it would go on with the old key: `alone` says
    /// whether that is so, and is asked when no other can begin any more.
    ///
    /// # Errors
    /// [`SecretsError::InUse`] where another process is at work; what keeps a key or a value from being written. Called
    /// again, it goes on where it stopped, and so does the next process that opens the secrets.
    pub async fn rotate_key(
        file: &File,
        key_path: &Path,
        alone: impl Fn() -> bool + Send,
    ) -> Result<u64, SecretsError> {
        begin(file, key_path, alone).await?;
        Ok(finish(file, key_path, &mut |_| Ok(())).await?.unwrap_or_default())
    }
}

/// Finishes a rotation that was begun; `None` where none was.
pub(super) async fn finish_begun(file: &File, key_path: &Path) -> Result<Option<u64>, SecretsError> {
    finish(file, key_path, &mut |_| Ok(())).await
}

/// Whether there is a next key.
pub(super) fn is_begun(key_path: &Path) -> Result<bool, KeyError> {
    let next = next_path(key_path);
    next.try_exists().map_err(|source| KeyError::File { path: next, source })
}

fn next_path(key_path: &Path) -> PathBuf {
    let mut next = key_path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

/// Makes the next key, unless an earlier rotation left one.
async fn begin(file: &File, key_path: &Path, alone: impl Fn() -> bool + Send) -> Result<(), SecretsError> {
    // Who opens the secrets reads the keys under the same lock, after it has said that it is at work.
    let lock = file.begin().await?;
    if !alone() {
        return Err(SecretsError::InUse);
    }
    if read_key(key_path)?.is_none() {
        return Err(KeyError::Missing { path: key_path.to_owned() }.into());
    }
    if !is_begun(key_path)? {
        make_key(&next_path(key_path))?;
    }
    lock.rollback().await;
    Ok(())
}

async fn finish(file: &File, key_path: &Path, go: Go<'_>) -> Result<Option<u64>, SecretsError> {
    let next_path = next_path(key_path);
    let Some(next) = read_key(&next_path)? else { return Ok(None) };
    go(Step::Begun)?;
    let next = Seal::new(&next);
    let present = read_key(key_path)?.map(|key| Seal::new(&key));
    let (mut after, mut count) = (String::new(), 0);
    while let Some(last) = reseal(file, key_path, &after, present.as_ref(), &next, &mut count).await? {
        after = last;
        go(Step::Resealed)?;
    }
    let mut tx = file.begin().await?;
    let proof = next.seal(PROOF, &[]).map_err(KeyError::Chance)?;
    let put = sqlx::query("INSERT OR REPLACE INTO secrets_key (only, proof) VALUES (1, ?)").bind(proof);
    put.execute(&mut *tx).await?;
    tx.commit().await?;
    go(Step::Proven)?;
    let (from, to) = (next_path.clone(), key_path.to_owned());
    let renamed = blocking(move || match fs::rename(&from, &to) {
        // Another process has finished the same rotation.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(&to),
    });
    renamed.await.map_err(|source| KeyError::File { path: next_path, source })?;
    go(Step::Renamed)?;
    Ok(Some(count))
}

/// Seals the values after a name with the next key, a page of them, and returns the last one's name; `None` where there
/// was none.
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
    use crate::domain::{Fence, SecretKind, SecretName};
    use crate::ports::{CallContext, Clock, Cms, Credentials, Entropy, Outcome, SecretStore, StoredSecret};

    struct Bench {
        dir: tempfile::TempDir,
        file: File,
        clock: SystemClock,
        ids: OsIds,
    }

    impl Bench {
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
            CallContext { deadline, write: self.ids.write(), fence: Fence::new(1, 1) }
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

        /// Every value is read, and there is one key.
        async fn assert_whole(&self, values: &[(SecretName, Credentials)]) {
            let secrets = self.open().await;
            for (name, value) in values {
                let read = secrets.read(name).await.unwrap();
                assert!(matches!(read, Some(StoredSecret::Value(held)) if held == *value), "{name}");
            }
            secrets.check().await.unwrap();
            assert!(!next_path(&self.key()).exists(), "no key is left over");
        }

        fn bytes(&self) -> Vec<u8> {
            (*read_key(&self.key()).unwrap().unwrap()).to_vec()
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "what stands in the files is what this is about")]
    async fn every_value_is_sealed_with_the_new_key() {
        let bench = Bench::new().await;
        let values = bench.fill(70).await;
        let before = bench.bytes();
        assert_eq!(EmbeddedSecrets::rotate_key(&bench.file, &bench.key(), || true).await.unwrap(), 70);
        assert_ne!(bench.bytes(), before);
        bench.assert_whole(&values).await;
        // With the old key nothing opens any more.
        fs::remove_file(bench.key()).unwrap();
        fs::write(bench.key(), &before).unwrap();
        fs::set_permissions(bench.key(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let opened = EmbeddedSecrets::open(bench.file.clone(), &bench.key(), Arc::new(bench.clock)).await;
        assert!(matches!(opened, Err(SecretsError::Key(KeyError::Wrong { .. }))));
    }

    #[tokio::test]
    async fn another_process_at_work_is_left_alone() {
        let bench = Bench::new().await;
        let values = bench.fill(1).await;
        let before = bench.bytes();
        let refused = EmbeddedSecrets::rotate_key(&bench.file, &bench.key(), || false).await;
        assert!(matches!(refused, Err(SecretsError::InUse)));
        assert_eq!(bench.bytes(), before);
        bench.assert_whole(&values).await;
    }

    #[tokio::test]
    async fn a_crash_after_any_step_loses_nothing() {
        let mut reached = Vec::new();
        for crash in 0.. {
            let bench = Bench::new().await;
            let values = bench.fill(130).await;
            let before = bench.bytes();
            begin(&bench.file, &bench.key(), || true).await.unwrap();
            let mut steps = 0;
            let mut go = |step| {
                steps += 1;
                if steps <= crash {
                    return Ok(());
                }
                reached.push(step);
                Err(SecretsError::InUse)
            };
            let ended = finish(&bench.file, &bench.key(), &mut go).await;
            // Another process opens the secrets, and finds all of it.
            bench.assert_whole(&values).await;
            assert_ne!(bench.bytes(), before, "the rotation was finished");
            if ended.is_ok() {
                break;
            }
            assert!(crash < 100, "it does not end");
        }
        use Step::{Begun, Proven, Renamed, Resealed};
        assert_eq!(reached, [Begun, Resealed, Resealed, Resealed, Proven, Renamed]);
    }
}
