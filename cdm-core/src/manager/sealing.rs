//! The platform's sealing key, made when it is first needed and kept in the store of secrets.

use secrecy::SecretString;

use super::{Manager, ManagerError};
use crate::domain::SecretName;
use crate::ports::{Credentials, ErrorKind, Outcome, StoredSecret};

/// How often it is looked for after another process may have made it.
const TRIES: u32 = 5;

impl Manager {
    /// The key that people's second factors are sealed with. Of several processes that make one at a time, one is kept.
    ///
    /// # Errors
    /// When the store of secrets does not answer, or holds something else under that name.
    pub async fn sealing_key(&self) -> Result<SecretString, ManagerError> {
        if let Some(key) = self.sealing.get() {
            return Ok(key.clone());
        }
        let name = SecretName::SEALING;
        for _ in 0..TRIES {
            // What is used is what was read back, so that a key is never lost that something was sealed with.
            match self.ports.secrets.read(&name).await? {
                Some(StoredSecret::Value(Credentials::Sealing(key))) => {
                    return Ok(self.sealing.get_or_init(|| key).clone());
                }
                Some(StoredSecret::Value(_) | StoredSecret::Deleting) => {
                    let detail =
                        format!("the secret `{name}` is being deleted, or is no sealing key; restore it");
                    return Err(ManagerError::Denied(detail));
                }
                None => {}
            }
            let drawn = Credentials::Sealing(self.fresh_secret(""));
            let create = || async {
                match self.ports.secrets.create(&self.call(), &name, &drawn).await {
                    Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => Outcome::Applied(()),
                    other => other,
                }
            };
            self.until_applied(create).await?;
        }
        Err(ManagerError::Unknown)
    }
}
