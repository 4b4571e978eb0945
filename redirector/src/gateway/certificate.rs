//! The certificate that visitors are shown: two files, which are read again when they change.

use crate::crypto_provider::provider;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

/// How often the files are looked at. Certificates are renewed days before they expire.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {path}: {reason}; it is to be a PEM file")]
    File { path: PathBuf, reason: String },
    #[error("the certificate and its key can't be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// A certificate (PEM, with what leads to its issuer) and its key.
#[derive(Debug)]
pub struct Certificate {
    files: [PathBuf; 2],
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// The text of the files, also where it is of no use: it is complained of once.
    read: [Vec<u8>; 2],
    config: Arc<ServerConfig>,
}

impl Certificate {
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = [certificate, key].map(Path::to_owned);
        let read = read(&files)?;
        let config = config(&files, &read)?;
        Ok(Self { files, current: Mutex::new(Current { read, config }) })
    }

    /// TLS 1.2 and 1.3 with what the files had last.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Takes what is in the files now. Gives whether that is something else than before. While they do not fit each other,
    /// as between the writing of one and of the other, what was read last stays.
    pub fn read_again(&self) -> Result<bool, CertificateError> {
        let read = read(&self.files)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if read == current.read {
            return Ok(false);
        }
        current.read.clone_from(&read);
        current.config = config(&self.files, &read)?;
        Ok(true)
    }

    /// Looks after the files for as long as it is polled.
    pub async fn keep_current(self: Arc<Self>) {
        let mut complaints = Complaints::default();
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let certificate = Arc::clone(&self);
            match spawn_blocking(move || certificate.read_again()).await {
                Err(_) => {}
                Ok(read) => complaints.tell(read),
            }
        }
    }
}

/// What goes wrong, as long as it does, is complained of once.
#[derive(Default)]
struct Complaints {
    last: Option<String>,
}

impl Complaints {
    fn tell(&mut self, read: Result<bool, CertificateError>) {
        match read {
            Ok(changed) => {
                self.last = None;
                if changed {
                    tracing::info!("the certificate has changed");
                }
            }
            Err(error) => {
                if self.is_new(&error) {
                    tracing::warn!(%error, "the old certificate stays in use");
                }
            }
        }
    }

    fn is_new(&mut self, error: &CertificateError) -> bool {
        let text = error.to_string();
        self.last.replace(text.clone()) != Some(text)
    }
}

fn read(files: &[PathBuf; 2]) -> Result<[Vec<u8>; 2], CertificateError> {
    let [certificate, key] = files;
    let read = |path: &Path| fs::read(path).map_err(|error| failed(path, &error));
    Ok([read(certificate)?, read(key)?])
}

fn config(files: &[PathBuf; 2], [chain, key]: &[Vec<u8>; 2]) -> Result<Arc<ServerConfig>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&files[0], &error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(&files[1], &error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn failed(path: &Path, reason: &dyn ToString) -> CertificateError {
    CertificateError::File { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    /// A certificate and its key, as PEM.
    fn pair() -> [String; 2] {
        let made = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
        [pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der())]
    }

    /// RFC 7468.
    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn half_of_a_change_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let write = |at: usize, text: &str| fs::write(&files[at], text).unwrap();
        let (old, new) = (pair(), pair());
        write(0, &old[0]);
        write(1, &old[1]);
        let certificate = Certificate::open(&files[0], &files[1]).unwrap();
        let before = certificate.config();
        let unchanged = || Arc::ptr_eq(&before, &certificate.config());
        assert!(matches!(certificate.read_again(), Ok(false)));
        write(0, &new[0]);
        assert!(matches!(certificate.read_again(), Err(CertificateError::Pair(_))) && unchanged());
        assert!(matches!(certificate.read_again(), Ok(false)), "it is complained of once");
        fs::remove_file(&files[1]).unwrap();
        assert!(matches!(certificate.read_again(), Err(CertificateError::File { .. })) && unchanged());
        write(1, &new[1]);
        assert!(matches!(certificate.read_again(), Ok(true)) && !unchanged());
    }

    #[test]
    fn a_file_that_is_gone_is_complained_of_once() {
        let gone = |name: &str| read(&["cert.pem", name].map(|name| Path::new("/nonexistent").join(name)));
        let mut complaints = Complaints::default();
        let new: Vec<bool> = (0..3).map(|_| complaints.is_new(&gone("key.pem").unwrap_err())).collect();
        assert_eq!(new, [true, false, false]);
        complaints.tell(Ok(false));
        assert!(complaints.is_new(&gone("key.pem").unwrap_err()), "it was there again in between");
    }
}
