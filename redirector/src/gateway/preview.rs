//! What a preview is, as it is kept and as requests meet it.

use super::context::{NotInjectable, PreviewContext};
use crate::{
    context::{InterceptKey, Matcher, NoRandomness},
    trace::contexts::Contexts,
    tunnel::token::TokenId,
};
use jiff::{Timestamp, ToSpan as _};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest time a preview may live.
pub const MAX_DAYS: i64 = 90;

/// How long a preview lives if nothing is said. Seconds.
pub const DEFAULT_LIFETIME: i64 = 8 * 3600;

/// What opens a preview: 130 random bits as 26 of `a-z2-7` (the alphabet of RFC 4648 §6, in lower case), which is a
/// DNS label. The gateway keeps a hash of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PreviewId(String);

/// SHA-256 of a preview's id: what the gateway knows it by. 130 random bits need no slow hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PreviewHash([u8; 32]);

/// A text that is no preview id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a preview id is 26 of a-z and 2-7, as in the link that `redirector preview create` printed")]
pub struct NotAnId;

/// Who may look at a preview.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Whoever has the link. The gateway asks browsers and search engines to keep it to themselves
    #[default]
    Link,
    /// Whoever has the link and the password
    Password,
    /// Anybody: the link is no secret, and `preview list` shows it
    Public,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Link => "link",
            Self::Password => "password",
            Self::Public => "public",
        })
    }
}

/// What visitors get while the developer is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PreviewWhenAway {
    /// A page that says so
    #[default]
    Page,
    /// The live version
    Live,
}

/// A preview as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// For people, and to remove it by; one of a kind on its gateway.
    pub name: String,
    /// Who made it, for people: `user@host`.
    pub owner: String,
    /// The join token it was made with; `None`: over the gateway's own socket.
    pub token: Option<TokenId>,
    /// The name of that token.
    pub token_name: String,
    /// What the intercept looks for, and so what requests get.
    pub matcher: Matcher,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub access: Access,
    /// Of [`Access::Password`]: an argon2id hash in PHC form.
    pub password: Option<String>,
    /// Of [`Access::Public`]: the id itself, which is no secret then.
    pub id: Option<String>,
    pub when_away: PreviewWhenAway,
}

/// A preview that requests can be for.
#[derive(Debug)]
pub struct LivePreview {
    pub hash: PreviewHash,
    pub preview: Preview,
    pub context: PreviewContext,
    /// What its requests carry, as traces tell it.
    pub sought: Contexts,
}

/// How a preview that was there once came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    Expired,
    Removed,
}

impl PreviewId {
    pub fn random() -> Result<Self, NoRandomness> {
        // Made as an intercept's key is: just as random, and a DNS label as well.
        Ok(Self(InterceptKey::random()?.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn hash(&self) -> PreviewHash {
        PreviewHash::of(self.0.as_bytes())
    }
}

impl FromStr for PreviewId {
    type Err = NotAnId;

    /// In any case: host names have none.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let valid = text.len() == 26
            && text.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'2'..=b'7'));
        if valid { Ok(Self(text.to_ascii_lowercase())) } else { Err(NotAnId) }
    }
}

/// Not the id, which is a secret.
impl fmt::Debug for PreviewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreviewId({:?})", self.hash())
    }
}

impl PreviewHash {
    /// Of a secret with enough random bits of its own.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(hash)
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The beginning, to tell one from another in logs.
impl fmt::Debug for PreviewHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Preview {
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.expires
    }
}

impl LivePreview {
    pub fn new(hash: PreviewHash, preview: Preview) -> Result<Self, NotInjectable> {
        let context = PreviewContext::of(&preview.matcher)?;
        let sought = Contexts::of([&preview.matcher]);
        Ok(Self { hash, preview, context, sought })
    }
}

/// When a preview made `now` to live for `seconds` expires; not later than [`MAX_DAYS`] from now.
#[must_use]
pub fn expiry(now: Timestamp, seconds: Option<i64>) -> Timestamp {
    let seconds = seconds.unwrap_or(DEFAULT_LIFETIME).clamp(1, MAX_DAYS * 24 * 3600);
    now.checked_add(seconds.seconds()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_130_random_bits_and_is_a_dns_label() {
        let ids: Vec<PreviewId> = (0..1000).map(|_| PreviewId::random().unwrap()).collect();
        for id in &ids {
            assert_eq!(id.as_str().len(), 26);
            assert_eq!(id.as_str().parse::<PreviewId>().as_ref(), Ok(id));
        }
        // 26 symbols, each one of 32: all of them occur in all places, and no id twice.
        for place in 0..26 {
            let mut seen: Vec<u8> = ids.iter().map(|id| id.as_str().as_bytes()[place]).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 32, "place {place}");
        }
        let mut hashes: Vec<PreviewHash> = ids.iter().map(PreviewId::hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 1000);
    }

    #[test]
    fn what_is_no_id_is_refused_and_case_does_not_count() {
        let id = PreviewId::random().unwrap();
        assert_eq!(id.as_str().to_ascii_uppercase().parse(), Ok(id.clone()));
        for text in
            ["", "a", "abcdefghijklmnopqrstuvwxy1", "abcdefghijklmnopqrstuvwxy.", "äbcdefghijklmnopqrstuvwxy"]
        {
            assert_eq!(text.parse::<PreviewId>(), Err(NotAnId), "{text}");
        }
        assert_eq!(format!("{}a", id.as_str()).parse::<PreviewId>(), Err(NotAnId));
        assert!(!format!("{id:?}").contains(id.as_str()));
    }

    #[test]
    fn a_preview_expires_at_its_time_and_none_lives_for_ever() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(expiry(now, Some(60)).as_second(), 60);
        assert_eq!(expiry(now, None).as_second(), DEFAULT_LIFETIME);
        assert_eq!(expiry(now, Some(i64::MAX)).as_second(), MAX_DAYS * 24 * 3600);
        assert_eq!(expiry(now, Some(-5)).as_second(), 1);
    }
}
