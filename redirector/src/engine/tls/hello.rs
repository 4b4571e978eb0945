//! What a client asks for in the first message of TLS (RFC 8446 §4.1.2). Pure: bytes in, answer out.

use rustls::{
    SignatureScheme,
    pki_types::DnsName,
    server::{Accepted, Acceptor},
};
use std::io;
use thiserror::Error;

/// The protocols inside TLS that the agent routes, as ALPN names them (RFC 7301 §6).
const ROUTED: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Longer ones are not known in practice.
const MAX_HELLO: usize = 64 * 1024;

/// Why a client's first bytes are left to the app.
#[derive(Debug, Error)]
pub(super) enum NotTaken {
    #[error("not understood as TLS: {0}")]
    NotUnderstood(io::Error),
    #[error("the client asks for another protocol than HTTP")]
    OtherProtocol,
}

/// A client's wishes.
pub(super) struct ClientHello {
    /// The connection as rustls has it, up to and including this message.
    pub accepted: Accepted,
    pub server_name: Option<DnsName<'static>>,
    /// What to ask the app for: of the client's protocols those that are routed, in its order.
    pub alpn: Vec<Vec<u8>>,
    /// The kinds of certificates that the client can use.
    pub schemes: Vec<SignatureScheme>,
    /// How many of the bytes were taken.
    pub len: usize,
}

/// Reads the message, which may come in pieces.
#[derive(Default)]
pub(super) struct HelloReader {
    acceptor: Acceptor,
    taken: usize,
}

impl HelloReader {
    /// `bytes`: all that the client has sent so far. `None`: there must be more. Not to be called again after an
    /// answer.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, NotTaken> {
        if bytes.len() > MAX_HELLO {
            return Err(NotTaken::NotUnderstood(io::ErrorKind::InvalidData.into()));
        }
        while self.taken < bytes.len() {
            let mut rest = &bytes[self.taken..];
            self.taken += self.acceptor.read_tls(&mut rest).map_err(NotTaken::NotUnderstood)?;
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return self.understand(accepted).map(Some),
                Err((error, _unsent_alert)) => return Err(NotTaken::NotUnderstood(io::Error::other(error))),
            }
        }
        Ok(None)
    }

    fn understand(&self, accepted: Accepted) -> Result<ClientHello, NotTaken> {
        let hello = accepted.client_hello();
        let alpn = match hello.alpn() {
            Some(wanted) => routed(wanted).ok_or(NotTaken::OtherProtocol)?,
            None => Vec::new(),
        };
        let server_name =
            hello.server_name().and_then(|name| DnsName::try_from(name).ok()).map(|name| name.to_owned());
        let schemes = hello.signature_schemes().to_vec();
        Ok(ClientHello { accepted, server_name, alpn, schemes, len: self.taken })
    }
}

/// Those of the client's protocols that are routed; `None` if none is: it wants something else of the app.
fn routed<'a>(wanted: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Vec<u8>>> {
    let routed: Vec<_> = wanted.filter(|name| ROUTED.contains(name)).map(<[u8]>::to_vec).collect();
    (!routed.is_empty()).then_some(routed)
}

/// All that is routed, for who asks in nobody's name.
pub(super) fn all_routed() -> Vec<Vec<u8>> {
    ROUTED.iter().map(|name| name.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{any_certificate::AnyCertificate, crypto_provider::provider};
    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection};
    use std::sync::Arc;

    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new()))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Option<ClientHello>, NotTaken> {
        HelloReader::default().read(bytes)
    }

    #[test]
    fn name_and_protocols_are_those_of_the_client() {
        let bytes = hello("pod.test", &["spdy/1", "http/1.1"]);
        let hello = read(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name.unwrap().as_ref(), "pod.test");
        assert_eq!(hello.alpn, [b"http/1.1"]);
        assert_eq!(hello.len, bytes.len());
        assert!(!hello.schemes.is_empty());
    }

    #[test]
    fn a_client_without_name_or_protocol_gets_none() {
        let hello = read(&hello("192.0.2.1", &[])).unwrap().unwrap();
        assert!(hello.server_name.is_none() && hello.alpn.is_empty());
    }

    #[test]
    fn a_client_of_another_protocol_is_left_to_the_app() {
        assert!(matches!(read(&hello("pod.test", &["acme-tls/1"])), Err(NotTaken::OtherProtocol)));
    }

    #[test]
    fn it_may_come_byte_by_byte_and_with_more_behind_it() {
        let mut bytes = hello("pod.test", &[]);
        let whole = bytes.len();
        let mut reader = HelloReader::default();
        for end in 1..whole {
            assert!(reader.read(&bytes[..end]).unwrap().is_none(), "{end}");
        }
        bytes.extend_from_slice(b"\x17\x03\x03\x00\x01x");
        let hello = reader.read(&bytes).unwrap().unwrap();
        assert!((whole..=bytes.len()).contains(&hello.len));
    }

    #[test]
    fn what_is_no_hello_is_not_understood() {
        for bytes in [&b"\x16\x03\x01\x00\x04junk"[..], b"\x16\xff\xff\xff\xff\xff\xff", b"\x16garbage"] {
            assert!(matches!(read(bytes), Err(NotTaken::NotUnderstood(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(mut bytes: Vec<u8>, at in 0usize..300, byte: u8) {
            let _ = read(&bytes);
            bytes.insert(0, 0x16);
            let _ = read(&bytes);
            let mut changed = hello("pod.test", &["http/1.1"]);
            let at = at % changed.len();
            changed[at] = byte;
            let _ = read(&changed);
        }
    }
}
