//! The certificate of the listener: loaded at the start, and again when its files change.
//!
//! A change is detected by the content of the files, with symbolic links followed, so the replacement of a directory link
//! (as in a mounted Kubernetes Secret) counts as a change. If the new pair is not valid, the current pair stays in use.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cdm_core::ports::Clock;
use cdm_core::wiring::TlsFiles;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The hash that represents unreadable files.
const UNREADABLE: [u8; 32] = [0; 32];
/// How often the files are checked.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// An error of the certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read")]
    Read {
        /// The path of the file.
        path: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The content of a file is not valid.
    #[error("`{path}` {problem}")]
    Content {
        /// The path of the file.
        path: String,
        /// The problem, as the predicate of a sentence about the file.
        problem: String,
    },
    /// The key does not match the certificate.
    #[error("the key `{key}` does not belong to the first certificate of `{cert}`")]
    Mismatch {
        /// The path of the certificate.
        cert: String,
        /// The path of the key.
        key: String,
    },
    /// The TLS library rejects the configuration.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// The certificate and TLS settings of a listener. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.current.files).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Current {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    key: RwLock<Arc<CertifiedKey>>,
    /// The hash of the files at the last check, also if the content was not valid.
    last_hash: Mutex<[u8; 32]>,
}

/// The result of a check of the files.
#[derive(Debug)]
enum Reload {
    Unchanged,
    Replaced,
    Failed(TlsError),
}

impl Tls {
    /// Loads and validates the certificate and its key.
    ///
    /// # Errors
    /// If a file is missing or is not PEM, or if the key does not match the certificate.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = Pair::read(files)?;
        let key = RwLock::new(Arc::new(pair.validate(files, &provider)?));
        let current = Arc::new(Current {
            files: files.clone(),
            provider: Arc::clone(&provider),
            key,
            last_hash: Mutex::new(pair.hash),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current })
    }

    /// Performs the TLS handshake.
    pub(super) fn accept<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: I,
    ) -> impl Future<Output = io::Result<TlsStream<I>>> + use<I> {
        self.acceptor.accept(stream)
    }

    /// Checks the files every [`CHECK_INTERVAL`], and does not return.
    pub(super) async fn watch(self, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep_until(clock.monotonic().after(CHECK_INTERVAL)).await;
            let current = Arc::clone(&self.current);
            let Ok(reload) = tokio::task::spawn_blocking(move || current.reload()).await else { continue };
            let cert = self.current.files.cert.display();
            match reload {
                Reload::Unchanged => {}
                Reload::Replaced => {
                    tracing::info!(%cert, "the TLS certificate was reloaded; new connections use it")
                }
                Reload::Failed(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(
                        %cert, %error, cause,
                        "the changed TLS files are not valid; the previous certificate stays in use"
                    );
                }
            }
        }
    }
}

impl Current {
    fn reload(&self) -> Reload {
        let mut last_hash = self.last_hash.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match Pair::read(&self.files) {
            Ok(pair) if pair.hash == *last_hash => return Reload::Unchanged,
            Ok(pair) => pair,
            // Reported once while the files stay unreadable.
            Err(_) if *last_hash == UNREADABLE => return Reload::Unchanged,
            Err(error) => {
                *last_hash = UNREADABLE;
                return Reload::Failed(error);
            }
        };
        *last_hash = pair.hash;
        match pair.validate(&self.files, &self.provider) {
            Ok(key) => {
                *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                Reload::Replaced
            }
            Err(error) => Reload::Failed(error),
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The content of both files, with a hash of it.
struct Pair {
    hash: [u8; 32],
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let file = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.display().to_string(), source })
        };
        let (cert, key) = (file(&files.cert)?, file(&files.key)?);
        let hash = Sha256::new().chain_update(Sha256::digest(&cert)).chain_update(Sha256::digest(&key));
        Ok(Self { hash: hash.finalize().into(), cert, key })
    }

    fn validate(&self, files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let content = |path: &Path, problem: String| {
            let path = path.display().to_string();
            TlsError::Content { path, problem }
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| content(&files.cert, format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(content(&files.cert, "contains no certificate in PEM".to_owned()));
        }
        let der = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            content(&files.key, "contains no private key in PEM (PKCS #8, PKCS #1 or SEC 1)".to_owned())
        })?;
        let key = provider
            .key_provider
            .load_private_key(der)
            .map_err(|_| content(&files.key, "contains a key of an unsupported type".to_owned()))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            // Some kinds of keys do not expose their public part, and cannot be compared.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
                cert: files.cert.display().to_string(),
                key: files.key.display().to_string(),
            }),
            Err(error) => {
                Err(content(&files.cert, format!("does not start with a valid certificate: {error}")))
            }
        }
    }
}
