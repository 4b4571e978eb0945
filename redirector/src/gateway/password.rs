//! Passwords of previews: kept as argon2id hashes, and guessed at slowly.

use super::preview::PreviewHash;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Shortest password, in characters.
pub const MIN_LEN: usize = 8;

/// Longest password, in bytes.
pub const MAX_LEN: usize = 256;

/// Wrong passwords that one client may try at once; then one more each [`PAUSE`].
const CLIENT_TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(60);

/// Wrong passwords for one preview, from wherever: generous, for it keeps out whoever knows the password, too.
const PREVIEW_TRIES: u32 = 100;
const PREVIEW_PAUSE: Duration = Duration::from_secs(36);

/// Most that is remembered; when it is full of guessers nobody gets in but those with a cookie.
const MAX_REMEMBERED: usize = 65_536;

/// Why there is no hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("a password has {MIN_LEN} characters or more, and {MAX_LEN} bytes at most")]
    Length,
    #[error("the password could not be hashed: {0}")]
    Hash(String),
}

/// The password as an argon2id hash in PHC form, with the crate's parameters (19 MiB, 2 passes: OWASP's first choice).
/// Takes some 20 ms of a processor.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < MIN_LEN || password.len() > MAX_LEN {
        return Err(PasswordError::Length);
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| PasswordError::Hash(error.to_string()))
}

/// Takes as long as [`hash`].
#[must_use]
pub fn is_right(password: &str, hash: &str) -> bool {
    password.len() <= MAX_LEN
        && PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Counts attempts, per preview and client and per preview. Knows no clock.
#[derive(Debug, Default)]
pub struct Attempts {
    buckets: HashMap<(PreviewHash, Option<IpAddr>), Bucket>,
    /// All places are taken until then, at least: looking for one that has become free takes its time.
    full_until: Option<Instant>,
}

/// Attempts that are used up, and when that was true. One comes back each pause.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    used: u32,
    since: Instant,
}

/// Come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub wait: Duration,
}

impl Attempts {
    /// Takes an attempt, before it is known whether the password is right: attempts at the same time count as well.
    pub fn take(&mut self, preview: PreviewHash, client: IpAddr, now: Instant) -> Result<(), TooMany> {
        let keys = Self::keys(preview, client);
        for (key, tries, pause) in keys {
            let used = self.buckets.get(&key).map_or(0, |bucket| bucket.after(now, pause).used);
            if used >= tries {
                return Err(TooMany { wait: pause });
            }
        }
        if self.buckets.len() >= MAX_REMEMBERED && !self.make_room(now) {
            return Err(TooMany { wait: PAUSE });
        }
        for (key, _, pause) in keys {
            let bucket = self.buckets.entry(key).or_insert(Bucket { used: 0, since: now });
            *bucket = bucket.after(now, pause);
            bucket.used += 1;
        }
        Ok(())
    }

    /// The password was right: it was no guess.
    pub fn give_back(&mut self, preview: PreviewHash, client: IpAddr) {
        let [own, (shared, ..)] = Self::keys(preview, client);
        self.buckets.remove(&own.0);
        if let Some(bucket) = self.buckets.get_mut(&shared) {
            bucket.used = bucket.used.saturating_sub(1);
        }
    }

    fn keys(preview: PreviewHash, client: IpAddr) -> [((PreviewHash, Option<IpAddr>), u32, Duration); 2] {
        [
            ((preview, Some(network(client))), CLIENT_TRIES, PAUSE),
            ((preview, None), PREVIEW_TRIES, PREVIEW_PAUSE),
        ]
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        self.buckets.retain(|(_, client), bucket| {
            let pause = if client.is_some() { PAUSE } else { PREVIEW_PAUSE };
            bucket.after(now, pause).used > 0
        });
        let has_room = self.buckets.len() < MAX_REMEMBERED;
        self.full_until = (!has_room).then(|| now + Duration::from_secs(1));
        has_room
    }
}

impl Bucket {
    /// The same later: what has come back meanwhile is not used any more.
    fn after(self, now: Instant, pause: Duration) -> Self {
        let pauses = now.saturating_duration_since(self.since).as_secs() / pause.as_secs().max(1);
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX);
        let used = self.used.saturating_sub(pauses);
        let since = if used == 0 { now } else { self.since + pause * pauses };
        Self { used, since }
    }
}

/// One customer has a whole /64 of IPv6 (RFC 6177).
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(number: u8) -> PreviewHash {
        PreviewHash::from_bytes([number; 32])
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_password_is_known_by_its_hash_only() {
        let hash = hash("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains("horse"), "{hash}");
        assert!(is_right("correct horse", &hash));
        assert!(
            !is_right("correct horsf", &hash) && !is_right("", &hash) && !is_right("correct horse", "junk")
        );
        assert_ne!(super::hash("correct horse").unwrap(), hash, "salted");
        assert_eq!(super::hash("short"), Err(PasswordError::Length));
        assert_eq!(super::hash(&"x".repeat(257)), Err(PasswordError::Length));
    }

    #[test]
    fn a_client_has_five_tries_and_one_more_each_minute() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let mallory = client("192.0.2.1");
        for _ in 0..5 {
            assert_eq!(attempts.take(preview(1), mallory, start), Ok(()));
        }
        assert!(attempts.take(preview(1), mallory, start).is_err());
        assert!(attempts.take(preview(1), client("192.0.2.2"), start).is_ok(), "others may try");
        assert!(attempts.take(preview(2), mallory, start).is_ok(), "other previews may be tried");
        let later = start + PAUSE;
        assert!(attempts.take(preview(1), mallory, later).is_ok());
        assert!(attempts.take(preview(1), mallory, later).is_err());
    }

    #[test]
    fn a_whole_ipv6_network_is_one_client() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..5 {
            assert!(attempts.take(preview(1), client(&format!("2001:db8::{number}")), now).is_ok());
        }
        assert!(attempts.take(preview(1), client("2001:db8::ffff"), now).is_err());
        assert!(attempts.take(preview(1), client("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn many_clients_together_are_limited_too() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let took = (0..1000u32)
            .filter(|number| attempts.take(preview(1), IpAddr::from(number.to_be_bytes()), now).is_ok())
            .count();
        assert_eq!(took, PREVIEW_TRIES as usize);
    }

    #[test]
    fn who_knows_the_password_is_not_counted() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..1000 {
            assert!(attempts.take(preview(1), client("192.0.2.1"), now).is_ok());
            attempts.give_back(preview(1), client("192.0.2.1"));
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..70_000u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let _ = attempts.take(PreviewHash::from_bytes(bytes), client("192.0.2.1"), now);
        }
        assert!(attempts.buckets.len() <= MAX_REMEMBERED + 1);
        assert!(attempts.take(preview(255), client("192.0.2.1"), now + PREVIEW_PAUSE * 2).is_ok());
    }
}
