//! The certificate of the listener, and taking in a new one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// A certificate that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {wanted} in PEM: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The two files do not belong together, or are of a kind that is not supported.
    #[error("the certificate {} cannot be used with the key {}: {error}", cert.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
}

/// How often the files are looked at for a new certificate.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What connections are encrypted with. A certificate that is replaced on disk is taken in without a
/// restart.
pub(super) struct Identity {
    files: Tls,
    current: RwLock<Current>,
}

struct Current {
    read: Read,
    config: Arc<ServerConfig>,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Read {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    pub(super) fn load(files: &Tls) -> Result<Identity, TlsError> {
        let read = Read::from(files)?;
        let config = read.config(files)?;
        let current = RwLock::new(Current { read, config });
        Ok(Identity { files: files.clone(), current })
    }

    /// For a new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current.config))
    }

    /// Takes in new certificates for as long as it is polled.
    pub(super) async fn renew(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            match self.look() {
                Ok(true) => {
                    tracing::info!(file = %self.files.cert_file.display(), "took in a new certificate")
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the certificate on disk cannot be used; the one before stays");
                }
            }
        }
    }

    /// Answers whether there was something new.
    fn look(&self) -> Result<bool, TlsError> {
        let read = Read::from(&self.files)?;
        if read == self.current.read().unwrap_or_else(PoisonError::into_inner).read {
            return Ok(false);
        }
        let config = read.config(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { read, config };
        Ok(true)
    }
}

impl Read {
    fn from(files: &Tls) -> Result<Read, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })
        };
        Ok(Read { cert: read(&files.cert_file)?, key: read(&files.key_file)? })
    }

    fn config(&self, files: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
        let unusable = |path: &Path, wanted, problem: String| TlsError::Unusable {
            path: path.to_owned(),
            wanted,
            problem,
        };
        let chain = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())
            .and_then(|chain| match chain.is_empty() {
                true => Err("there is none in it".into()),
                false => Ok(chain),
            })
            .map_err(|problem| unusable(&files.cert_file, "certificate", problem))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| unusable(&files.key_file, "private key", error.to_string()))?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Mismatch {
                cert: files.cert_file.clone(),
                key: files.key_file.clone(),
                error,
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn write(dir: &TempDir) -> Tls {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let files =
            Tls { cert_file: dir.path().join("cert.pem"), key_file: dir.path().join("key.pem") };
        fs::write(&files.cert_file, made.cert.pem()).unwrap();
        fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_new_certificate_is_taken_in_and_a_broken_one_is_not() {
        let dir = TempDir::new().unwrap();
        let files = write(&dir);
        let identity = Identity::load(&files).unwrap();
        let current = || Arc::as_ptr(&identity.current.read().unwrap().config);
        let first = current();
        assert!(!identity.look().unwrap());

        write(&dir);
        assert!(identity.look().unwrap());
        let second = current();
        assert_ne!(first, second);

        fs::write(&files.key_file, "no key").unwrap();
        assert!(identity.look().unwrap_err().to_string().contains("holds no private key"));
        assert_eq!(current(), second);
    }
}
