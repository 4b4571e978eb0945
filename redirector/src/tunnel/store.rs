//! The agent's join tokens: who may connect, limited to which targets, until revoked.
//!
//! `tokens.json` in the state directory keeps hashes only: of the secret (for `authorization: Bearer`) and of the
//! developer's public key (for the TLS client certificate). Only the agent process opens it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::sync::watch;

use super::identity::{DeveloperIdentity, IdentityError};
use super::state_file;
use super::token::{Fingerprint, JoinToken, NoRandomness, TokenId, TokenSecret};

const TOKENS_FILE: &str = "tokens.json";
const DEFAULT_TOKEN_FILE: &str = "token";
const DEFAULT_TOKEN_NAME: &str = "default";
const FORMAT: u32 = 1;
const MAX_NAME_CHARS: usize = 64;

/// The tokens of one agent. Clones share the same tokens.
#[derive(Clone)]
pub struct TokenStore {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    agent: Fingerprint,
    tokens: Mutex<Vec<StoredToken>>,
    /// Counts changes of `tokens`.
    generation: watch::Sender<u64>,
}

/// What may be shown of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    pub id: TokenId,
    /// Whom the token was made for.
    pub name: String,
    /// The targets it is limited to; `None` is all of the node.
    pub targets: Option<Vec<String>>,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
}

/// What the holder of a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    pub id: TokenId,
    pub name: String,
    pub targets: Option<Vec<String>>,
}

/// The token is not one of this agent's. Deliberately says no more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "this join token is not known here: it was revoked, or belongs to another agent or gateway; ask for a new one (`redirector token create` on its machine)"
)]
pub struct AuthError;

/// Why the token store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot {what} {path}: {source}; give the agent a state directory it may write to (--state-dir)")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or remove it to start over (every join token then stops working)"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("a token needs a name of 1 to {MAX_NAME_CHARS} printable characters: whom is it for?")]
    Name,
    #[error(
        "a token limited to no target at all would be good for nothing; name a target, or leave the limit away"
    )]
    NoTargets,
    #[error("there is no token with the id {0}; `redirector token list` shows all")]
    Unknown(TokenId),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

#[derive(Serialize, Deserialize)]
struct TokensFile {
    format: u32,
    tokens: Vec<StoredToken>,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredToken {
    #[serde(flatten)]
    info: TokenInfo,
    /// SHA-256 of the secret.
    #[serde(with = "base64url_32")]
    secret_hash: [u8; 32],
    /// SHA-256 of the public key that is derived from the secret.
    #[serde(with = "as_text")]
    key_hash: Fingerprint,
}

impl TokenStore {
    /// Opens the store in the agent's state directory. `agent` goes into the tokens made here.
    ///
    /// # Errors
    /// When the directory can't be used or `tokens.json` is damaged.
    pub fn open(dir: &Path, agent: Fingerprint) -> Result<Self, StoreError> {
        state_file::create_private_dir(dir).map_err(file_error("create", dir))?;
        let path = dir.join(TOKENS_FILE);
        let tokens = match state_file::read(dir, TOKENS_FILE).map_err(file_error("read", &path))? {
            Some(bytes) => parse(&bytes).map_err(|reason| StoreError::Damaged { path, reason })?,
            None => Vec::new(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                agent,
                tokens: Mutex::new(tokens),
                generation: watch::Sender::new(0),
            }),
        })
    }

    /// Makes a token for `name`, for all targets or only those given. This is the only time the secret is seen.
    ///
    /// # Errors
    /// When the name or limit makes no sense, or the store can't be written; then nothing has changed.
    pub fn create(&self, name: &str, targets: Option<Vec<String>>) -> Result<JoinToken, StoreError> {
        let mut tokens = self.tokens();
        let (token, stored) = self.make(&tokens, name, targets)?;
        let mut changed = tokens.clone();
        changed.push(stored);
        self.commit(&mut tokens, changed)?;
        Ok(token)
    }

    /// All live tokens, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<TokenInfo> {
        self.tokens().iter().map(|token| token.info.clone()).collect()
    }

    /// Makes a token worthless, at once and for good. The copy in `STATE_DIR/token` goes too.
    ///
    /// # Errors
    /// When there is no such token, or the store can't be written; then nothing has changed.
    pub fn revoke(&self, id: &TokenId) -> Result<(), StoreError> {
        let mut tokens = self.tokens();
        let changed: Vec<_> = tokens.iter().filter(|token| token.info.id != *id).cloned().collect();
        if changed.len() == tokens.len() {
            return Err(StoreError::Unknown(id.clone()));
        }
        self.commit(&mut tokens, changed)?;
        if self.written_default()?.is_some_and(|token| token.id == *id) {
            let path = self.default_token_path();
            state_file::remove(&self.shared.dir, DEFAULT_TOKEN_FILE).map_err(file_error("remove", &path))?;
        }
        Ok(())
    }

    /// Checks a token, in the same time whether its id is unknown or its secret wrong.
    ///
    /// # Errors
    /// When the token is not a live one of this agent.
    pub fn authenticate(&self, id: &TokenId, secret: &TokenSecret) -> Result<TokenGrant, AuthError> {
        let presented = secret.hash();
        let tokens = self.tokens();
        let known = tokens.iter().find(|token| token.info.id == *id);
        // No secret is known to hash to zeros, and `known` is asked for below all the same.
        let expected = known.map_or([0; 32], |token| token.secret_hash);
        match (bool::from(expected.ct_eq(&presented)), known) {
            (true, Some(token)) => Ok(token.grant()),
            _ => Err(AuthError),
        }
    }

    /// The live token to which a developer's public key belongs.
    #[must_use]
    pub fn token_of_key(&self, key_hash: &Fingerprint) -> Option<TokenId> {
        self.tokens().iter().find(|token| token.key_hash == *key_hash).map(|token| token.info.id.clone())
    }

    /// A counter that changes with every change of the tokens.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Resolves when the token is revoked, at once if it already is. A tunnel runs beside this.
    pub async fn revoked(&self, id: &TokenId) {
        let mut changes = self.changes();
        while self.tokens().iter().any(|token| token.info.id == *id) {
            // The sender lives as long as `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// At the agent's first start, makes a token for the whole node and writes it to `STATE_DIR/token` (mode 0600).
    ///
    /// Later starts return the same token. `None` when an operator has since revoked it or removed the file.
    ///
    /// # Errors
    /// When the state directory can't be read or written.
    pub fn ensure_default_token(&self) -> Result<Option<JoinToken>, StoreError> {
        let mut tokens = self.tokens();
        let first_start = state_file::read(&self.shared.dir, TOKENS_FILE)
            .map_err(file_error("read", &self.shared.dir.join(TOKENS_FILE)))?
            .is_none();
        let written = self.written_default()?;
        let live = written.as_ref().filter(|written| {
            tokens
                .iter()
                .any(|token| token.info.id == written.id && token.secret_hash == written.secret.hash())
        });
        let mut changed = tokens.clone();
        match live {
            Some(token) if token.fingerprint == self.shared.agent => return Ok(Some(token.clone())),
            // The agent got a new identity: nobody can use this token any more.
            Some(token) => changed.retain(|stored| stored.info.id != token.id),
            None if first_start => {}
            None => return Ok(None),
        }
        let (token, stored) = self.make(&tokens, DEFAULT_TOKEN_NAME, None)?;
        changed.push(stored);
        // The file first: after a crash in between it is still the first start.
        let line = format!("{token}\n");
        state_file::replace(&self.shared.dir, DEFAULT_TOKEN_FILE, line.as_bytes())
            .map_err(file_error("write", &self.default_token_path()))?;
        self.commit(&mut tokens, changed)?;
        Ok(Some(token))
    }

    /// Where `ensure_default_token` writes.
    #[must_use]
    pub fn default_token_path(&self) -> PathBuf {
        self.shared.dir.join(DEFAULT_TOKEN_FILE)
    }

    fn written_default(&self) -> Result<Option<JoinToken>, StoreError> {
        let bytes = state_file::read(&self.shared.dir, DEFAULT_TOKEN_FILE)
            .map_err(file_error("read", &self.default_token_path()))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
    }

    fn make(
        &self,
        existing: &[StoredToken],
        name: &str,
        targets: Option<Vec<String>>,
    ) -> Result<(JoinToken, StoredToken), StoreError> {
        if name.trim().is_empty()
            || name.chars().count() > MAX_NAME_CHARS
            || name.chars().any(char::is_control)
        {
            return Err(StoreError::Name);
        }
        if targets.as_ref().is_some_and(Vec::is_empty) {
            return Err(StoreError::NoTargets);
        }
        let token = loop {
            let token = JoinToken::generate(self.shared.agent)?;
            if existing.iter().all(|other| other.info.id != token.id) {
                break token;
            }
        };
        let info = TokenInfo {
            id: token.id.clone(),
            name: name.to_owned(),
            targets,
            created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        let stored = StoredToken {
            info,
            secret_hash: token.secret.hash(),
            key_hash: DeveloperIdentity::from_secret(&token.secret)?.key_hash(),
        };
        Ok((token, stored))
    }

    /// Writes `changed` to disk, then makes it the truth.
    fn commit(&self, tokens: &mut Vec<StoredToken>, changed: Vec<StoredToken>) -> Result<(), StoreError> {
        let path = self.shared.dir.join(TOKENS_FILE);
        let file = TokensFile { format: FORMAT, tokens: changed };
        let bytes =
            serde_json::to_vec_pretty(&file).map_err(io::Error::from).map_err(file_error("write", &path))?;
        state_file::replace(&self.shared.dir, TOKENS_FILE, &bytes).map_err(file_error("write", &path))?;
        *tokens = file.tokens;
        self.shared.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// `Vec` is replaced as a whole, so a panic elsewhere can't have left it half changed.
    fn tokens(&self) -> MutexGuard<'_, Vec<StoredToken>> {
        self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredToken {
    fn grant(&self) -> TokenGrant {
        let TokenInfo { id, name, targets, .. } = self.info.clone();
        TokenGrant { id, name, targets }
    }
}

impl TokenGrant {
    /// May the holder intercept this target? Targets are compared as text, in the form the agent lists them.
    #[must_use]
    pub fn allows(&self, target: &str) -> bool {
        self.targets.as_ref().is_none_or(|targets| targets.iter().any(|allowed| allowed == target))
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<StoredToken>, String> {
    let file: TokensFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.format == FORMAT {
        Ok(file.tokens)
    } else {
        Err(format!("format {} is not the {FORMAT} this redirector knows", file.format))
    }
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { what, path, source }
}

mod base64url_32 {
    use super::{Deserialize, URL_SAFE_NO_PAD};
    use base64::Engine as _;
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("expected 32 bytes in base64url"))
    }
}

mod as_text {
    use super::{Deserialize, Fingerprint};
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &[u8] = b"agent";

    fn open(dir: &tempfile::TempDir) -> TokenStore {
        TokenStore::open(dir.path(), Fingerprint::of_public_key(AGENT)).unwrap()
    }

    #[test]
    fn tokens_and_their_limits_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let targets = vec!["netns:shop".to_owned()];
        let token = open(&dir).create("alice", Some(targets.clone())).unwrap();

        let store = open(&dir);
        let grant = store.authenticate(&token.id, &token.secret).unwrap();
        assert_eq!(grant, TokenGrant { id: token.id.clone(), name: "alice".into(), targets: Some(targets) });
        assert!(grant.allows("netns:shop") && !grant.allows("netns:shop2") && !grant.allows(""));
        let key = DeveloperIdentity::from_secret(&token.secret).unwrap().key_hash();
        assert_eq!(store.token_of_key(&key), Some(token.id));
    }

    #[test]
    fn wrong_secret_and_unknown_id_are_refused_alike() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let (alice, bob) = (store.create("alice", None).unwrap(), store.create("bob", None).unwrap());
        assert!(store.authenticate(&alice.id, &alice.secret).unwrap().allows("anything"));
        assert_eq!(store.authenticate(&alice.id, &bob.secret), Err(AuthError));
        assert_eq!(store.authenticate(&"zzzzzzzz".parse().unwrap(), &alice.secret), Err(AuthError));
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused_for_good_and_those_who_wait_learn_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let (alice, bob) = (store.create("alice", None).unwrap(), store.create("bob", None).unwrap());
        let waiting = tokio::spawn({
            let (store, id) = (store.clone(), alice.id.clone());
            async move { store.revoked(&id).await }
        });
        store.revoke(&alice.id).unwrap();
        waiting.await.unwrap();
        assert_eq!(store.authenticate(&alice.id, &alice.secret), Err(AuthError));
        assert!(matches!(store.revoke(&alice.id), Err(StoreError::Unknown(_))));
        let reopened = open(&dir);
        assert_eq!(reopened.authenticate(&alice.id, &alice.secret), Err(AuthError));
        assert_eq!(reopened.list().into_iter().map(|info| info.id).collect::<Vec<_>>(), [bob.id]);
    }

    #[test]
    fn nothing_on_disk_or_in_the_list_gives_the_secret_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let token = store.create("alice", None).unwrap();
        let secret = token.to_string().rsplit_once('.').unwrap().1.to_owned();
        let file = std::fs::read_to_string(dir.path().join(TOKENS_FILE)).unwrap();
        assert!(file.contains(token.id.as_str()) && !file.contains(&secret));
        assert!(!serde_json::to_string(&store.list()).unwrap().contains(&secret));
    }

    #[test]
    fn list_tells_when_a_token_was_made_in_rfc_3339() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        store.create("alice", None).unwrap();
        let created = &store.list()[0].created;
        assert!(created.parse::<jiff::Timestamp>().is_ok() && created.ends_with('Z'), "{created}");
    }

    #[test]
    fn the_default_token_is_made_once_and_written_for_the_operator() {
        let dir = tempfile::tempdir().unwrap();
        let token = open(&dir).ensure_default_token().unwrap().unwrap();
        let written = std::fs::read_to_string(dir.path().join("token")).unwrap();
        assert_eq!(written.trim().parse::<JoinToken>().unwrap(), token);

        let store = open(&dir);
        assert_eq!(store.ensure_default_token().unwrap(), Some(token.clone()));
        assert_eq!(store.list().len(), 1);
        assert_eq!(store.list()[0].name, "default");

        store.revoke(&token.id).unwrap();
        assert!(!dir.path().join("token").exists());
        assert_eq!(open(&dir).ensure_default_token().unwrap(), None, "revoked means revoked");
    }

    #[test]
    fn a_new_agent_identity_gets_a_new_default_token() {
        let dir = tempfile::tempdir().unwrap();
        let old = open(&dir).ensure_default_token().unwrap().unwrap();
        let other = Fingerprint::of_public_key(b"other agent");
        let store = TokenStore::open(dir.path(), other).unwrap();
        let new = store.ensure_default_token().unwrap().unwrap();
        assert_eq!(new.fingerprint, other);
        assert_eq!(store.authenticate(&old.id, &old.secret), Err(AuthError));
        assert!(store.authenticate(&new.id, &new.secret).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn token_files_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        open(&dir).ensure_default_token().unwrap();
        for name in [TOKENS_FILE, DEFAULT_TOKEN_FILE] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays behind");
    }

    #[test]
    fn names_and_limits_that_make_no_sense_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        for name in ["", "  ", "a\nb", &"x".repeat(65)] {
            assert!(matches!(store.create(name, None), Err(StoreError::Name)), "{name:?}");
        }
        assert!(matches!(store.create("alice", Some(Vec::new())), Err(StoreError::NoTargets)));
        assert!(store.list().is_empty() && !dir.path().join(TOKENS_FILE).exists());
    }

    #[test]
    fn a_damaged_store_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["{", r#"{"format":2,"tokens":[]}"#] {
            std::fs::write(dir.path().join(TOKENS_FILE), content).unwrap();
            let error = TokenStore::open(dir.path(), Fingerprint::of_public_key(AGENT)).err().unwrap();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(dir.path().join(TOKENS_FILE)).unwrap(), content);
        }
    }
}
