//! Who is who in TLS: the agent's long-lived key, and the developer's key derived from the join token.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData as _,
};
use ring::hkdf::{HKDF_SHA256, Salt};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::state_file;
use super::token::{Fingerprint, TokenSecret};

const KEY_FILE: &str = "identity.pk8";

/// RFC 8410 §7: PKCS#8 version 0, algorithm id-Ed25519, an OCTET STRING in an OCTET STRING; the 32-byte seed follows.
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The agent's private key and its self-signed certificate.
///
/// P-256 and not Ed25519: `curl` built with LibreSSL or Secure Transport can't verify Ed25519.
pub struct AgentIdentity {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
    fingerprint: Fingerprint,
}

/// The developer's private key and self-signed certificate, both a pure function of the token's secret.
///
/// The agent can therefore pin the developer's public key without keeping the secret.
pub struct DeveloperIdentity {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
    key_hash: Fingerprint,
}

/// Why there is no identity to work with.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("cannot {what} {path}: {source}; give the agent a state directory it may write to (--state-dir)")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} does not hold a P-256 key: {source}; restore it from a backup, or remove it to make a new identity (every join token given out before then stops working)"
    )]
    Damaged { path: PathBuf, source: rcgen::Error },
    #[error("could not make a key pair or certificate: {0}; check the system's random number generator")]
    Crypto(String),
}

impl AgentIdentity {
    /// Loads the key from `dir/identity.pk8` (PKCS#8 DER, mode 0600), or makes it there.
    ///
    /// Only the key is kept. The certificate is signed anew at each start; nothing but its key is ever checked.
    ///
    /// # Errors
    /// When the directory or file can't be read or written, or holds something else than a P-256 key.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(KEY_FILE);
        let file_error = |what| {
            let path = path.clone();
            move |source| IdentityError::File { what, path, source }
        };
        state_file::create_private_dir(dir).map_err(file_error("create the directory of"))?;
        let key = match state_file::read(dir, KEY_FILE).map_err(file_error("read"))? {
            Some(pkcs8) => {
                KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_slice().into(), &PKCS_ECDSA_P256_SHA256)
                    .map_err(|source| IdentityError::Damaged { path: path.clone(), source })?
            }
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
                state_file::replace(dir, KEY_FILE, key.serialized_der()).map_err(file_error("write"))?;
                key
            }
        };
        Ok(Self {
            certificate: self_signed(&key, "redirector agent")?,
            fingerprint: Fingerprint::of_public_key(&key.subject_public_key_info()),
            key: key.serialized_der().to_vec().into(),
        })
    }

    /// What join tokens carry to pin this agent.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl DeveloperIdentity {
    /// Derives the Ed25519 key with HKDF-SHA256 (RFC 5869) from the secret.
    ///
    /// # Errors
    /// Only when the crypto library fails.
    pub fn from_secret(secret: &TokenSecret) -> Result<Self, IdentityError> {
        let mut pkcs8 = [0; 48];
        let (prefix, seed) = pkcs8.split_at_mut(ED25519_PKCS8_PREFIX.len());
        prefix.copy_from_slice(&ED25519_PKCS8_PREFIX);
        Salt::new(HKDF_SHA256, b"redirector join token v1")
            .extract(secret.expose())
            .expand(&[b"developer identity, Ed25519 seed"], HKDF_SHA256)
            .and_then(|output| output.fill(seed))
            .map_err(|_| IdentityError::Crypto("HKDF failed".to_owned()))?;
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_slice().into(), &PKCS_ED25519).map_err(crypto)?;
        Ok(Self {
            certificate: self_signed(&key, "redirector developer")?,
            key_hash: Fingerprint::of_public_key(&key.subject_public_key_info()),
            key: pkcs8.to_vec().into(),
        })
    }

    /// SHA-256 of the public key, by which the agent knows this developer.
    #[must_use]
    pub fn key_hash(&self) -> Fingerprint {
        self.key_hash
    }
}

fn self_signed(key: &KeyPair, common_name: &str) -> Result<CertificateDer<'static>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params.self_signed(key).map_err(crypto)?.der().clone())
}

#[allow(clippy::needless_pass_by_value)]
fn crypto(error: rcgen::Error) -> IdentityError {
    IdentityError::Crypto(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::token::JoinToken;

    #[test]
    fn the_agent_keeps_its_identity_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let first = AgentIdentity::load_or_create(dir.path()).unwrap().fingerprint();
        assert_eq!(AgentIdentity::load_or_create(dir.path()).unwrap().fingerprint(), first);
        std::fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        assert_ne!(AgentIdentity::load_or_create(dir.path()).unwrap().fingerprint(), first);
    }

    #[cfg(unix)]
    #[test]
    fn the_private_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        AgentIdentity::load_or_create(&dir).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join(KEY_FILE)), 0o600);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "no temporary file stays behind");
    }

    #[test]
    fn a_damaged_key_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY_FILE), b"garbage").unwrap();
        let error = AgentIdentity::load_or_create(dir.path()).err().unwrap();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(dir.path().join(KEY_FILE)).unwrap(), b"garbage");
    }

    #[test]
    fn the_same_secret_gives_the_same_developer_and_another_secret_another() {
        let pin = Fingerprint::of_public_key(b"agent");
        let (one, two) = (JoinToken::generate(pin).unwrap(), JoinToken::generate(pin).unwrap());
        let identity = |token: &JoinToken| DeveloperIdentity::from_secret(&token.secret).unwrap();
        assert_eq!(identity(&one).key_hash(), identity(&one).key_hash());
        assert_eq!(identity(&one).certificate, identity(&one).certificate);
        assert_ne!(identity(&one).key_hash(), identity(&two).key_hash());
    }
}
