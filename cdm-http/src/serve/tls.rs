//! The certificate of the listener: read at the start, and again whenever its files have changed.
//!
//! The files are compared by what they hold, through whatever links lead to them, so that the replacement of a
//! directory's link (as Kubernetes replaces a mounted Secret) counts as a change. A pair that does not hold leaves the
//! present one in service.

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

/// Stands for the hash of files that cannot be read.
const UNREADABLE: [u8; 32] = [0; 32];
/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(10);

/// Why a certificate and its key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{path}` {problem}")]
    Content {
        /// Which.
        path: String,
        /// What it lacks.
        problem: String,
    },
    /// The key is another certificate's.
    #[error("the key `{key}` does not belong to the first certificate of `{cert}`")]
    Mismatch {
        /// The certificate's file.
        cert: String,
        /// The key's.
        key: String,
    },
    /// The library refuses the combination.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// What a listener serves TLS with; clones serve the same.
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
    /// The hash of what the files held when they were last looked at, whether that is served or not.
    seen: Mutex<[u8; 32]>,
}

/// What a look at the files came to.
#[derive(Debug)]
enum Look {
    Same,
    Replaced,
    Broken(TlsError),
}

impl Tls {
    /// Reads and judges the pair.
    ///
    /// # Errors
    /// When a file is missing or is not PEM, or the key is not the certificate's.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = Pair::read(files)?;
        let key = RwLock::new(Arc::new(pair.judge(files, &provider)?));
        let current = Arc::new(Current {
            files: files.clone(),
            provider: Arc::clone(&provider),
            key,
            seen: Mutex::new(pair.hash),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current })
    }

    /// Makes the handshake.
    pub(super) fn accept<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: I,
    ) -> impl Future<Output = io::Result<TlsStream<I>>> + use<I> {
        self.acceptor.accept(stream)
    }

    /// Looks at the files again and again, for ever.
    pub(super) async fn follow(self, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep_until(clock.monotonic().after(LOOK)).await;
            let current = Arc::clone(&self.current);
            let Ok(look) = tokio::task::spawn_blocking(move || current.look()).await else { continue };
            let cert = self.current.files.cert.display();
            match look {
                Look::Same => {}
                Look::Replaced => tracing::info!(%cert, "new connections get the new TLS certificate"),
                Look::Broken(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(
                        %cert, %error, cause,
                        "the TLS files have changed and cannot be used; the certificate that was read before stays in service"
                    );
                }
            }
        }
    }
}

impl Current {
    fn look(&self) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match Pair::read(&self.files) {
            Ok(pair) if pair.hash == *seen => return Look::Same,
            Ok(pair) => pair,
            // Said once for as long as they cannot be read.
            Err(_) if *seen == UNREADABLE => return Look::Same,
            Err(error) => {
                *seen = UNREADABLE;
                return Look::Broken(error);
            }
        };
        *seen = pair.hash;
        match pair.judge(&self.files, &self.provider) {
            Ok(key) => {
                *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                Look::Replaced
            }
            Err(error) => Look::Broken(error),
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// What both files hold, and the hash of it.
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

    fn judge(&self, files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let content = |path: &Path, problem: String| {
            let path = path.display().to_string();
            TlsError::Content { path, problem }
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| content(&files.cert, format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(content(&files.cert, "holds no certificate in PEM".to_owned()));
        }
        let der = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            content(&files.key, "holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1)".to_owned())
        })?;
        let key = provider
            .key_provider
            .load_private_key(der)
            .map_err(|_| content(&files.key, "holds a key of a kind that is not supported".to_owned()))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            // A key that cannot show its public half is believed.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
                cert: files.cert.display().to_string(),
                key: files.key.display().to_string(),
            }),
            Err(error) => {
                Err(content(&files.cert, format!("does not begin with a usable certificate: {error}")))
            }
        }
    }
}
