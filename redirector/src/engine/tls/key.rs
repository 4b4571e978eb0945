//! A certificate with its key. Pure: from the text of PEM files (RFC 7468).

use crate::crypto_provider::provider;
use rustls::{
    Error, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
        pem::{self, PemObject as _},
    },
    server::{ParsedCertificate, ServerSessionMemoryCache},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use std::{fmt, sync::Arc};
use thiserror::Error as ThisError;

/// Sessions that clients may resume, per key.
const SESSIONS: usize = 1024;

/// Why a certificate and a key can't be used. Says nothing of their content.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum KeyError {
    #[error("there is no certificate in it; it must be PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("its certificate can't be read ({0}); X.509 version 3 is needed")]
    BadCertificate(String),
    #[error("its PEM is damaged")]
    BadPem,
    #[error(
        "there is no private key in it; it must be PEM (-----BEGIN PRIVATE KEY-----, or RSA or EC PRIVATE KEY)"
    )]
    NoKey,
    #[error("its key is encrypted; `openssl pkey -in FILE -out PLAIN` takes the passphrase off")]
    EncryptedKey,
    #[error("its key is of a kind that can't be used; RSA (2048 to 8192 bits), P-256, P-384 and Ed25519 can")]
    UnsupportedKey,
    #[error("the key does not belong to the certificate (the first one in its file)")]
    Mismatch,
}

/// A certificate's key, ready to sign. What it signs for is the certificate that the app shows.
pub struct TlsKey {
    public_key: SubjectPublicKeyInfoDer<'static>,
    /// The DNS names in the certificate.
    server_names: Vec<String>,
    key: Arc<dyn SigningKey>,
    /// Everything but certificate and protocols.
    config: ServerConfig,
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsKey({})", self.server_names.join(" "))
    }
}

/// The certificate of a key pair, by its file's text: the key of the first one is what the private key must fit.
pub fn certificate(pem: &[u8]) -> Result<CertificateDer<'static>, KeyError> {
    match CertificateDer::from_pem_slice(pem) {
        Ok(certificate) => Ok(certificate),
        Err(pem::Error::NoItemsFound) => Err(KeyError::NoCertificate),
        Err(_) => Err(KeyError::BadPem),
    }
}

/// A private key, by its file's text.
pub fn private_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, KeyError> {
    let key = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => key,
        Err(_) if contains(pem, b"ENCRYPTED") => return Err(KeyError::EncryptedKey),
        Err(pem::Error::NoItemsFound) => return Err(KeyError::NoKey),
        Err(_) => return Err(KeyError::BadPem),
    };
    if contains(pem, b"Proc-Type: 4,ENCRYPTED") {
        return Err(KeyError::EncryptedKey);
    }
    provider().key_provider.load_private_key(key).map_err(|_| KeyError::UnsupportedKey)
}

impl TlsKey {
    /// Puts the two together, if they belong together.
    pub fn new(certificate: CertificateDer<'static>, key: Arc<dyn SigningKey>) -> Result<Self, KeyError> {
        let unreadable = |error: Error| KeyError::BadCertificate(error.to_string());
        let public_key = public_key(&certificate).map_err(unreadable)?;
        if key.public_key().is_none_or(|of_key| of_key != public_key) {
            return Err(KeyError::Mismatch);
        }
        let server_names = server_names(&certificate);
        let single = CertifiedKey::new(vec![certificate], Arc::clone(&key));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unreadable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(single)));
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        Ok(Self { public_key, server_names, key, config })
    }

    /// From the text of both files.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, KeyError> {
        Self::new(certificate(certificate_pem)?, private_key(key_pem)?)
    }

    pub fn server_names(&self) -> &[String] {
        &self.server_names
    }

    /// Can it sign for this certificate? A renewed certificate may have kept its key.
    pub(super) fn fits(&self, certificate: &CertificateDer<'_>) -> bool {
        public_key(certificate).is_ok_and(|shown| shown == self.public_key)
    }

    /// What a client is answered: the app's certificates, and the protocol the app has chosen.
    pub(super) fn server_config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        alpn: Option<Vec<u8>>,
    ) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.cert_resolver =
            Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::clone(&self.key))));
        config.alpn_protocols = alpn.into_iter().collect();
        Arc::new(config)
    }
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info().into_owned())
}

/// With something in place of a wildcard, so that each is a name to ask for.
fn server_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    webpki::EndEntityCert::try_from(certificate).map_or_else(
        |_| Vec::new(),
        |certificate| certificate.valid_dns_names().map(|name| name.replacen('*', "any", 1)).collect(),
    )
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn pair(names: &[&str]) -> (String, String) {
        signed(&KeyPair::generate().unwrap(), names)
    }

    fn signed(key: &KeyPair, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(key).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", key.serialized_der()))
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn refusal(certificate: &str, key: &str) -> KeyError {
        TlsKey::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn all_kinds_of_keys_are_taken() {
        for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let (certificate, key) =
                signed(&KeyPair::generate_for(kind).unwrap(), &["pod.test", "*.pod.test"]);
            let key = TlsKey::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
            assert_eq!(key.server_names(), ["pod.test", "any.pod.test"]);
        }
    }

    #[test]
    fn a_key_fits_every_certificate_of_its_own() {
        let key = KeyPair::generate().unwrap();
        let (certificate, pem) = signed(&key, &["a.test"]);
        let tls = TlsKey::from_pem(certificate.as_bytes(), pem.as_bytes()).unwrap();
        let (renewed, _) = signed(&key, &["b.test"]);
        let (other, _) = pair(&["a.test"]);
        assert!(tls.fits(&super::certificate(renewed.as_bytes()).unwrap()));
        assert!(!tls.fits(&super::certificate(other.as_bytes()).unwrap()));
        assert!(!tls.fits(&CertificateDer::from(b"no certificate".to_vec())));
    }

    #[test]
    fn what_can_not_be_used_is_refused_with_the_reason() {
        let (certificate, key) = pair(&["a.test"]);
        let (other, _) = pair(&["a.test"]);
        assert_eq!(refusal("", &key), KeyError::NoCertificate);
        assert_eq!(refusal(&key, &key), KeyError::NoCertificate);
        assert_eq!(refusal(&certificate, ""), KeyError::NoKey);
        assert_eq!(refusal(&certificate, &certificate), KeyError::NoKey);
        assert_eq!(refusal(&other, &key), KeyError::Mismatch);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(refusal(&certificate, encrypted), KeyError::EncryptedKey);
        let odd = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(refusal(&certificate, odd), KeyError::UnsupportedKey);
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refusal(odd, &key), KeyError::BadCertificate(_)));
        assert_eq!(refusal(&certificate.replace("MII", "!!!"), &key), KeyError::BadPem);
    }

    #[test]
    fn other_text_around_them_does_no_harm() {
        let (certificate, key) = pair(&["a.test"]);
        let both = format!("subject=CN = a.test\n{certificate}\n# and\n{key}");
        assert!(TlsKey::from_pem(both.as_bytes(), both.as_bytes()).is_ok());
    }

    #[test]
    fn nothing_shows_the_key() {
        let (certificate, key) = pair(&["a.test"]);
        let tls = TlsKey::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(format!("{tls:?}"), "TlsKey(a.test)");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(certificate: Vec<u8>, key: Vec<u8>) {
            prop_assert!(TlsKey::from_pem(&certificate, &key).is_err());
        }
    }
}
