use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::support::{echo, echoes, pair_over, pattern, server as local_server, soon};
use crate::tunnel::identity::AgentIdentity;
use crate::tunnel::store::TokenStore;
use crate::tunnel::tls::{TlsError, client_config, explain, peer_token, server_config, server_name};

struct Agent {
    identity: AgentIdentity,
    store: TokenStore,
    _dir: TempDir,
}

impl Agent {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = AgentIdentity::load_or_create(dir.path()).unwrap();
        let store = TokenStore::open(dir.path(), identity.fingerprint()).unwrap();
        Self { identity, store, _dir: dir }
    }

    fn config(&self) -> Arc<ServerConfig> {
        server_config(&self.identity, &self.store).unwrap()
    }
}

type ServerSide = io::Result<server::TlsStream<DuplexStream>>;
type ClientSide = io::Result<client::TlsStream<DuplexStream>>;

/// Both handshakes; the server then says one byte, as a client learns only by reading that its certificate was taken.
async fn connect(server: Arc<ServerConfig>, client: ClientConfig) -> (ServerSide, ClientSide) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(near).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let dial = async {
        let mut stream = TlsConnector::from(Arc::new(client)).connect(server_name(), far).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    soon(async { tokio::join!(accept, dial) }).await
}

fn refusal(side: ClientSide) -> TlsError {
    explain(side.expect_err("the connection fails"))
}

#[tokio::test]
async fn a_live_token_connects_and_the_agent_knows_whose_it_is() {
    let agent = Agent::new();
    let (alice, bob) = (agent.store.create("alice", None).unwrap(), agent.store.create("bob", None).unwrap());
    for token in [&alice, &bob] {
        let (server, client) = connect(agent.config(), client_config(token).unwrap()).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        assert_eq!(peer_token(server.get_ref().1, &agent.store), Some(token.id.clone()));
        let connection = client.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[tokio::test]
async fn another_agent_is_not_talked_to() {
    let (mine, other) = (Agent::new(), Agent::new());
    let token = mine.store.create("alice", None).unwrap();
    let (server, client) = connect(other.config(), client_config(&token).unwrap()).await;
    assert!(server.is_err());
    let error = refusal(client);
    assert!(
        matches!(&error, TlsError::WrongAgent(wrong)
            if wrong.expected == mine.identity.fingerprint() && wrong.presented == other.identity.fingerprint()),
        "{error}"
    );
    assert!(error.to_string().starts_with("the agent's identity is not the one in the token: "));
}

#[tokio::test]
async fn the_agents_certificate_without_its_key_is_worth_nothing() {
    let (mine, thief) = (Agent::new(), Agent::new());
    let token = mine.store.create("alice", None).unwrap();
    let key =
        rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(thief.identity.key.clone_key()));
    let stolen = CertifiedKey::new(vec![mine.identity.certificate.clone()], key.unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(stolen)));
    let (_, client) = connect(Arc::new(config), client_config(&token).unwrap()).await;
    let error = refusal(client);
    assert!(matches!(error, TlsError::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_token_the_agent_never_made_is_refused() {
    let (agent, other) = (Agent::new(), Agent::new());
    let mut token = other.store.create("mallory", None).unwrap();
    token.fingerprint = agent.identity.fingerprint();
    let (server, client) = connect(agent.config(), client_config(&token).unwrap()).await;
    let error = explain(server.expect_err("the agent refuses"));
    assert!(matches!(error, TlsError::TokenRefused(_)), "{error}");
    let error = refusal(client);
    assert!(matches!(error, TlsError::TokenRefused(_)), "{error}");
}

#[tokio::test]
async fn a_revoked_token_is_refused_even_by_a_client_that_was_in_before() {
    let agent = Agent::new();
    let token = agent.store.create("alice", None).unwrap();
    // A client that resumes its session wherever the agent lets it.
    let (server, mut client) = (agent.config(), client_config(&token).unwrap());
    client.resumption = Resumption::in_memory_sessions(8);
    let (first, answer) = connect(server.clone(), client.clone()).await;
    let first = first.unwrap();
    answer.unwrap();
    agent.store.revoke(&token.id).unwrap();
    assert_eq!(peer_token(first.get_ref().1, &agent.store), None);
    let (_, second) = connect(server, client).await;
    let error = refusal(second);
    assert!(matches!(error, TlsError::TokenRefused(_)), "{error}");
}

/// Like `curl --insecure`: checks nothing.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn anonymous(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth()
}

#[tokio::test]
async fn a_client_without_certificate_connects_as_nobody() {
    let agent = Agent::new();
    agent.store.create("alice", None).unwrap();
    let (server, client) = connect(agent.config(), anonymous(&rustls::version::TLS13)).await;
    client.unwrap();
    assert_eq!(peer_token(server.unwrap().get_ref().1, &agent.store), None);
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let agent = Agent::new();
    let (server, client) = connect(agent.config(), anonymous(&rustls::version::TLS12)).await;
    let error = explain(server.expect_err("the agent refuses"));
    assert!(matches!(error, TlsError::NotTls13(_)), "{error}");
    let error = refusal(client);
    assert!(matches!(error, TlsError::NotTls13(_)), "{error}");
}

#[tokio::test]
async fn an_agent_that_only_speaks_tls_1_2_is_refused() {
    let agent = Agent::new();
    let token = agent.store.create("alice", None).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![agent.identity.certificate.clone()], agent.identity.key.clone_key().into())
        .unwrap();
    let (_, client) = connect(Arc::new(config), client_config(&token).unwrap()).await;
    let error = refusal(client);
    assert!(matches!(error, TlsError::NotTls13(_)), "{error}");
}

#[tokio::test]
async fn the_tunnel_carries_streams_over_tls() {
    let agent = Agent::new();
    let token = agent.store.create("alice", None).unwrap();
    let (server, client) = connect(agent.config(), client_config(&token).unwrap()).await;
    let pair = pair_over(server.unwrap(), client.unwrap(), local_server(echo).await).await;
    soon(echoes(pair.open(), &pattern(0, 2 << 20))).await;
}
