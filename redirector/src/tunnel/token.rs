//! The join token: the one string a developer needs to reach an agent and be let in.
//!
//! `rdr1.FINGERPRINT.ID.SECRET`: the fingerprint pins the agent, the id names the token in lists and logs, the
//! secret proves who holds it. Fingerprint and secret are 32 bytes each in base64url without padding (RFC 4648 §5).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

const PREFIX: &str = "rdr1";
const ID_LENGTH: usize = 8;
const ID_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// SHA-256 of an agent's public key, as DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7, pinned as in RFC 7469 §2.4).
///
/// The key and not the certificate, so that a renewed certificate keeps every token valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// The public name of a token: 8 characters of `a-z0-9`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// The 32 random bytes that make a token worth having. Compared in constant time, never printed by `Debug`.
#[derive(Clone)]
pub struct TokenSecret([u8; 32]);

/// A whole join token. `Display` prints the secret, `Debug` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub fingerprint: Fingerprint,
    pub id: TokenId,
    pub secret: TokenSecret,
}

/// Why a string is not a join token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error(
        "this is not a join token: one starts with `rdr1.`; copy the whole line from the agent's STATE_DIR/token, or make one with `redirector token create`"
    )]
    NotAToken,
    #[error(
        "this join token is of a newer kind than this redirector knows; use the same redirector version as the agent"
    )]
    NewerVersion,
    #[error(
        "this join token is incomplete: it has 4 parts joined by dots, rdr1.FINGERPRINT.ID.SECRET; copy all of it"
    )]
    Parts,
    #[error("the {part} of this join token is damaged: expected {expected}; copy the token again")]
    Damaged { part: &'static str, expected: &'static str },
    #[error("expected an authorization header of the form `Bearer rdr1.…` with the whole join token")]
    NotBearer,
}

/// The system had no random bytes to give.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the system's random number generator failed; check that getrandom(2) or /dev/urandom is available")]
pub struct NoRandomness;

impl JoinToken {
    /// A new token, of random id and secret, for the agent with this fingerprint.
    ///
    /// # Errors
    /// When the system's random number generator fails.
    pub fn generate(fingerprint: Fingerprint) -> Result<Self, NoRandomness> {
        Ok(Self { fingerprint, id: TokenId::random()?, secret: TokenSecret::random()? })
    }

    /// The value of the `authorization` header that carries this token.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {self}")
    }

    /// Reads the value of an `authorization` header. The scheme is case-insensitive (RFC 9110 §11.1).
    ///
    /// # Errors
    /// When the scheme is not `Bearer`, or the token is malformed.
    pub fn from_bearer(header: &str) -> Result<Self, TokenError> {
        let (scheme, token) = header.trim().split_once(' ').ok_or(TokenError::NotBearer)?;
        if scheme.eq_ignore_ascii_case("bearer") { token.parse() } else { Err(TokenError::NotBearer) }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", self.fingerprint, self.id, URL_SAFE_NO_PAD.encode(self.secret.0))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        match parts.next() {
            Some(PREFIX) => {}
            Some(prefix) if is_other_version(prefix) => return Err(TokenError::NewerVersion),
            _ => return Err(TokenError::NotAToken),
        }
        let (Some(fingerprint), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        Ok(Self {
            fingerprint: fingerprint.parse()?,
            id: id.parse()?,
            secret: TokenSecret(decode_32(secret, "secret")?),
        })
    }
}

impl Fingerprint {
    /// The fingerprint of a public key given as DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn of_public_key(spki_der: &[u8]) -> Self {
        Self(sha256(spki_der))
    }

    /// The same pin as `curl --pinnedpubkey` wants it.
    #[must_use]
    pub fn curl_pin(&self) -> String {
        format!("sha256//{}", STANDARD.encode(self.0))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        decode_32(text, "fingerprint").map(Self)
    }
}

impl TokenId {
    fn random() -> Result<Self, NoRandomness> {
        let bytes: [u8; 16] = random_bytes()?;
        // 128 bits reduced to 36^8 (41 bits): the bias of the remainder is far below 2^-80.
        let mut number = u128::from_be_bytes(bytes);
        let id = (0..ID_LENGTH)
            .map(|_| {
                let letter = ID_ALPHABET[(number % 36) as usize];
                number /= 36;
                char::from(letter)
            })
            .collect();
        Ok(Self(id))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({})", self.0)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() == ID_LENGTH && text.bytes().all(|byte| ID_ALPHABET.contains(&byte)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Damaged { part: "id", expected: "8 characters of a-z and 0-9" })
        }
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl TokenSecret {
    fn random() -> Result<Self, NoRandomness> {
        random_bytes().map(Self)
    }

    /// SHA-256 of the secret, which is what the agent keeps. 256 random bits need no slow hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

fn is_other_version(prefix: &str) -> bool {
    prefix
        .strip_prefix("rdr")
        .is_some_and(|version| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()))
}

fn decode_32(text: &str, part: &'static str) -> Result<[u8; 32], TokenError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(TokenError::Damaged { part, expected: "43 characters of base64url" })
}

fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(fingerprint: [u8; 32], id: &str, secret: [u8; 32]) -> JoinToken {
        JoinToken {
            fingerprint: Fingerprint(fingerprint),
            id: id.parse().unwrap(),
            secret: TokenSecret(secret),
        }
    }

    proptest! {
        #[test]
        fn every_token_survives_being_written_and_read(
            fingerprint: [u8; 32], id in "[a-z0-9]{8}", secret: [u8; 32], padding in "[ \t\r\n]{0,3}",
        ) {
            let token = token(fingerprint, &id, secret);
            let text = token.to_string();
            prop_assert_eq!(&format!("{padding}{text}{padding}").parse::<JoinToken>().unwrap(), &token);
            prop_assert_eq!(JoinToken::from_bearer(&token.bearer()).unwrap(), token);
        }

        #[test]
        fn a_shortened_token_is_never_taken_for_a_token(
            fingerprint: [u8; 32], secret: [u8; 32], cut in 1_usize..100,
        ) {
            let text = token(fingerprint, "abcd1234", secret).to_string();
            let kept = text.len().saturating_sub(cut);
            prop_assert!(text[..kept].parse::<JoinToken>().is_err());
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in "\\PC{0,120}") {
            let _ = text.parse::<JoinToken>();
            let _ = JoinToken::from_bearer(&text);
        }
    }

    #[test]
    fn generated_tokens_are_readable_and_differ() {
        let fingerprint = Fingerprint::of_public_key(b"key");
        let one = JoinToken::generate(fingerprint).unwrap();
        let two = JoinToken::generate(fingerprint).unwrap();
        assert_eq!(one.to_string().parse::<JoinToken>().unwrap(), one);
        assert_ne!(one.id, two.id);
        assert_ne!(one.secret, two.secret);
    }

    #[test]
    fn debug_output_does_not_show_the_secret() {
        let token = token([1; 32], "abcd1234", [0xAB; 32]);
        let secret = token.to_string().rsplit_once('.').unwrap().1.to_owned();
        let debug = format!("{token:?}");
        assert!(!debug.contains(&secret) && !debug.contains("171"), "{debug}");
        assert!(debug.contains("abcd1234"));
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let good = token([1; 32], "abcd1234", [2; 32]).to_string();
        let error = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(error(""), TokenError::NotAToken);
        assert_eq!(error("K10abc::server:def"), TokenError::NotAToken);
        assert_eq!(error(&good.replace("rdr1", "rdr2")), TokenError::NewerVersion);
        assert_eq!(error("rdr1.abc"), TokenError::Parts);
        assert_eq!(error(&format!("{good}.more")), TokenError::Parts);
        assert!(matches!(
            error(&good.replace("abcd1234", "ABCD1234")),
            TokenError::Damaged { part: "id", .. }
        ));
        assert!(matches!(error(&good[..good.len() - 1]), TokenError::Damaged { part: "secret", .. }));
        assert_eq!(JoinToken::from_bearer(&format!("Basic {good}")), Err(TokenError::NotBearer));
    }
}
