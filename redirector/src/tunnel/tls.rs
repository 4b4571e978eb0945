//! TLS 1.3 between developer and agent, each side pinned to the other's public key (RFC 8446).
//!
//! Certificates are only envelopes for keys here: names, dates and issuers mean nothing and are not looked at. That
//! the peer holds the private key is proven by the handshake signature, which is verified as always.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    PeerIncompatible, ServerConfig, ServerConnection, SignatureScheme,
};
use thiserror::Error;

use super::identity::{AgentIdentity, DeveloperIdentity, IdentityError};
use super::store::{AuthError, TokenStore};
use super::token::{Fingerprint, JoinToken, TokenId};
use crate::crypto_provider::provider;

const ALPN: &[u8] = b"http/1.1";

/// The agent's key is not the one that the join token names.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "the agent's identity is not the one in the token: expected {expected}, the peer has {presented}; either this address belongs to another agent (check --agent), or the agent lost its state directory (get a new token from it), or someone sits in between"
)]
pub struct WrongAgent {
    pub expected: Fingerprint,
    pub presented: Fingerprint,
}

/// Why TLS could not be set up or did not come about.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error(transparent)]
    WrongAgent(#[from] WrongAgent),
    #[error(transparent)]
    TokenRefused(AuthError),
    #[error("the peer does not speak TLS 1.3: {0}; is this the agent's own port, with nothing in between?")]
    NotTls13(rustls::Error),
    #[error("TLS failed: {0}; is this the agent's own port, with nothing in between?")]
    Protocol(rustls::Error),
    #[error("the connection broke during the TLS handshake: {0}")]
    Io(io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The agent's side. Clients may come without a certificate (`curl`); one that is presented must hold the key of a
/// live token.
///
/// # Errors
/// Only when the crypto library rejects the agent's own key.
pub fn server_config(identity: &AgentIdentity, store: &TokenStore) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier = Arc::new(TokenKeys { provider: provider.clone(), store: store.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())
        .map_err(TlsError::Protocol)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session skips the client certificate, so a revoked token could live on in a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The developer's side: exactly this token's agent, and the token's key as client certificate.
///
/// # Errors
/// Only when the crypto library rejects the derived key.
pub fn client_config(token: &JoinToken) -> Result<ClientConfig, TlsError> {
    let identity = DeveloperIdentity::from_secret(&token.secret)?;
    let provider = provider();
    let verifier = Arc::new(PinnedAgent { provider: provider.clone(), expected: token.fingerprint });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate], identity.key.into())
        .map_err(TlsError::Protocol)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// What to hand a TLS connector as server name. It is neither sent nor checked: the key is.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into())
}

/// The live token whose key the peer proved to hold. `None` when it showed no certificate, or the token has been
/// revoked since.
#[must_use]
pub fn peer_token(connection: &ServerConnection, store: &TokenStore) -> Option<TokenId> {
    let certificate = connection.peer_certificates()?.first()?;
    store.token_of_key(&key_hash(certificate).ok()?)
}

/// Says what a failed handshake, or the first failed read after it, was about.
///
/// With TLS 1.3 the client's handshake is over before the server has judged its certificate: a refusal of the token
/// arrives with the first read.
#[must_use]
pub fn explain(error: io::Error) -> TlsError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return TlsError::Io(error);
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.source().and_then(|source| source.downcast_ref::<WrongAgent>()) {
                Some(wrong) => TlsError::WrongAgent(*wrong),
                None => TlsError::Protocol(tls.clone()),
            }
        }
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        | rustls::Error::AlertReceived(AlertDescription::AccessDenied) => TlsError::TokenRefused(AuthError),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic,
        )
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => TlsError::NotTls13(tls.clone()),
        _ => TlsError::Protocol(tls.clone()),
    }
}

fn key_hash(certificate: &CertificateDer<'_>) -> Result<Fingerprint, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Fingerprint::of_public_key(&parsed.subject_public_key_info()))
}

fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
}

/// Accepts the one agent named in the token.
struct PinnedAgent {
    provider: Arc<CryptoProvider>,
    expected: Fingerprint,
}

impl fmt::Debug for PinnedAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedAgent({})", self.expected)
    }
}

impl ServerCertVerifier for PinnedAgent {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = key_hash(end_entity)?;
        if presented == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            let wrong = WrongAgent { expected: self.expected, presented };
            Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts the developers that hold a live token.
struct TokenKeys {
    provider: Arc<CryptoProvider>,
    store: TokenStore,
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys")
    }
}

impl ClientCertVerifier for TokenKeys {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.store.token_of_key(&key_hash(end_entity)?) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            // The alert for this, access_denied, tells the developer's side what happened.
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
