//! The platform's sealing key, which is generated at its first use and kept in the secret store.

use secrecy::SecretString;

use super::{Manager, ManagerError};
use crate::domain::SecretName;
use crate::ports::{Credentials, ErrorKind, Outcome, StoredSecret};

/// The maximum number of attempts to read the key after another process may have created it.
const TRIES: u32 = 5;

impl Manager {
    /// Returns the key that encrypts users' second factors. If several processes generate a key at the same time, all
    /// of them use the one that was stored.
    ///
    /// # Errors
    /// Returns an error if the secret store is unavailable, or if the secret has another kind of value or is being
    /// deleted.
    pub async fn sealing_key(&self) -> Result<SecretString, ManagerError> {
        if let Some(key) = self.sealing.get() {
            return Ok(key.clone());
        }
        let name = SecretName::SEALING;
        for _ in 0..TRIES {
            // Only a key that was read back is used, so that no data is encrypted with a lost key.
            match self.ports.secrets.read(&name).await? {
                Some(StoredSecret::Value(Credentials::Sealing(key))) => {
                    return Ok(self.sealing.get_or_init(|| key).clone());
                }
                Some(StoredSecret::Value(_) | StoredSecret::Deleting) => {
                    let detail = format!(
                        "the secret `{name}` is being deleted or is not a sealing key; restore the secret"
                    );
                    return Err(ManagerError::Denied(detail));
                }
                None => {}
            }
            let generated = Credentials::Sealing(self.fresh_secret(""));
            let create = || async {
                match self.ports.secrets.create(&self.call(), &name, &generated).await {
                    Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => Outcome::Applied(()),
                    other => other,
                }
            };
            self.until_applied(create).await?;
        }
        Err(ManagerError::Unknown)
    }
}
