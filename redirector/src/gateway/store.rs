//! The gateway's previews, on disk and in memory.
//!
//! `previews.redb` in the state directory is a redb file: pure Rust, one file, ACID, and a commit returns when its data
//! is on the disk. So what was acknowledged is there after a crash at any moment, and what was not is there as a whole
//! or not at all. Requests are answered from memory. All calls that change something block on the disk.

use super::{
    context::ContextNames,
    preview::{Ended, LivePreview, PreviewHash, PreviewId},
};
use crate::{
    context::NoRandomness,
    tunnel::{state_file::create_private_dir, token::TokenId},
};
use jiff::{SignedDuration, Timestamp};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

const FILE: &str = "previews.redb";

/// Hash of an id → [`Preview`] in JSON.
const PREVIEWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("previews-1");
/// Hash of an id → [`Tombstone`] in JSON.
const ENDED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("ended-1");
/// Hash of a visit's secret → hash of the preview's id.
const SESSIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("sessions-1");

/// Most previews of one gateway.
const MAX_PREVIEWS: usize = 10_000;

/// Most visits of one preview that its password has opened.
const MAX_SESSIONS: usize = 1000;

/// For how long a link says that its preview has ended, rather than that there never was one.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The previews of one gateway. Only one process has them open.
pub struct PreviewStore {
    database: Database,
    /// Held while something changes: on disk first, then in memory.
    writing: Mutex<()>,
    known: RwLock<Known>,
    /// Changes whenever a preview ends.
    ends: watch::Sender<u64>,
}

/// What is in memory of what is on disk.
struct Known {
    previews: HashMap<PreviewHash, Arc<LivePreview>>,
    ended: HashMap<PreviewHash, Tombstone>,
    /// Hash of a visit's secret → preview.
    sessions: HashMap<PreviewHash, PreviewHash>,
    names: Arc<ContextNames>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Tombstone {
    how: Ended,
    at: Timestamp,
}

/// What there is to an id.
#[derive(Clone, Debug)]
pub enum Found {
    Live(Arc<LivePreview>),
    Ended(Ended),
    Unknown,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PreviewStoreError {
    #[error(
        "cannot make or open {path}: {reason}; give the gateway a state directory it may write to (--state-dir)"
    )]
    Open { path: PathBuf, reason: String },
    #[error("another gateway uses {0}: stop it, or choose another directory with --state-dir")]
    InUse(PathBuf),
    #[error(
        "a preview in the store can't be read: {0}; restore the store from a backup, or remove it to start over"
    )]
    Damaged(String),
    #[error("the previews can't be written: {0}; is the disk full?")]
    Write(#[from] redb::Error),
    #[error("there is a preview \"{0}\" already: choose another --name, or remove that one")]
    NameTaken(String),
    #[error("the gateway has {MAX_PREVIEWS} previews, its limit: remove some")]
    Full,
    #[error("this preview has {MAX_SESSIONS} visitors who know its password, its limit")]
    Crowded,
    #[error("there is no preview \"{0}\"; `redirector preview list` shows those there are")]
    Unknown(String),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl PreviewStore {
    /// Opens the store in the gateway's state directory, or makes it there.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, PreviewStoreError> {
        let path = dir.join(FILE);
        let failed =
            |error: io::Error| PreviewStoreError::Open { path: path.clone(), reason: error.to_string() };
        create_private_dir(dir).map_err(failed)?;
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => PreviewStoreError::InUse(path.clone()),
            error => PreviewStoreError::Open { path: path.clone(), reason: error.to_string() },
        })?;
        close_to_others(&path).map_err(failed)?;
        let known = Known::read(&database)?;
        let store = Self {
            database,
            writing: Mutex::new(()),
            known: RwLock::new(known),
            ends: watch::Sender::new(0),
        };
        store.sweep(now)?;
        Ok(store)
    }

    /// Keeps a preview; it is there, whatever happens, when this returns.
    pub fn create(&self, live: LivePreview) -> Result<Arc<LivePreview>, PreviewStoreError> {
        let _writing = self.writing();
        let name = &live.preview.name;
        {
            let known = self.known();
            if known.previews.len() >= MAX_PREVIEWS {
                return Err(PreviewStoreError::Full);
            }
            if known.previews.values().any(|other| other.preview.name == *name) {
                return Err(PreviewStoreError::NameTaken(name.clone()));
            }
        }
        let json = json(&live.preview)?;
        self.commit(|transaction| {
            transaction.open_table(PREVIEWS)?.insert(&live.hash.as_bytes()[..], json.as_slice())?;
            Ok(())
        })?;
        let live = Arc::new(live);
        let mut known = self.known_mut();
        known.previews.insert(live.hash, Arc::clone(&live));
        known.rename();
        Ok(live)
    }

    /// Ends a preview for good.
    pub fn remove(&self, name: &str, now: Timestamp) -> Result<(), PreviewStoreError> {
        let _writing = self.writing();
        let found =
            self.known().previews.values().find(|live| live.preview.name == name).map(|live| live.hash);
        let hash = found.ok_or_else(|| PreviewStoreError::Unknown(name.to_owned()))?;
        self.end(&[(hash, Tombstone { how: Ended::Removed, at: now })], &[])
    }

    /// Ends what was made with a token.
    pub fn remove_of(&self, token: &TokenId, now: Timestamp) -> Result<(), PreviewStoreError> {
        let _writing = self.writing();
        let found: Vec<_> = self
            .known()
            .previews
            .values()
            .filter(|live| live.preview.token.as_ref() == Some(token))
            .map(|live| (live.hash, Tombstone { how: Ended::Removed, at: now }))
            .collect();
        self.end(&found, &[])
    }

    /// Opens a preview to a visitor who knew its password; gives what their cookie is to hold.
    pub fn open_session(&self, preview: PreviewHash) -> Result<PreviewId, PreviewStoreError> {
        let secret = PreviewId::random()?;
        let hash = secret.hash();
        let _writing = self.writing();
        if self.known().sessions.values().filter(|of| **of == preview).count() >= MAX_SESSIONS {
            return Err(PreviewStoreError::Crowded);
        }
        self.commit(|transaction| {
            transaction.open_table(SESSIONS)?.insert(&hash.as_bytes()[..], &preview.as_bytes()[..])?;
            Ok(())
        })?;
        self.known_mut().sessions.insert(hash, preview);
        Ok(secret)
    }

    /// The preview that a visit was opened for.
    #[must_use]
    pub fn session(&self, secret: &PreviewId) -> Option<PreviewHash> {
        self.known().sessions.get(&secret.hash()).copied()
    }

    #[must_use]
    pub fn find(&self, hash: PreviewHash, now: Timestamp) -> Found {
        let known = self.known();
        match (known.previews.get(&hash), known.ended.get(&hash)) {
            (Some(live), _) if live.preview.has_expired(now) => Found::Ended(Ended::Expired),
            (Some(live), _) => Found::Live(Arc::clone(live)),
            (None, Some(tombstone)) => Found::Ended(tombstone.how),
            (None, None) => Found::Unknown,
        }
    }

    /// Those that have not ended, by name.
    #[must_use]
    pub fn list(&self, now: Timestamp) -> Vec<Arc<LivePreview>> {
        let known = self.known();
        let mut list: Vec<_> =
            known.previews.values().filter(|live| !live.preview.has_expired(now)).cloned().collect();
        list.sort_by(|one, other| one.preview.name.cmp(&other.preview.name));
        list
    }

    /// The names of all previews' context, and our own.
    #[must_use]
    pub fn names(&self) -> Arc<ContextNames> {
        Arc::clone(&self.known().names)
    }

    /// Resolves when the preview has been removed; when it expires is the caller's to know.
    pub async fn removed(&self, hash: PreviewHash) {
        let mut ends = self.ends.subscribe();
        while self.known().previews.contains_key(&hash) {
            // The sender lives as long as `self`.
            if ends.changed().await.is_err() {
                return;
            }
        }
    }

    /// Puts away what has expired, and forgets what ended long ago.
    pub fn sweep(&self, now: Timestamp) -> Result<(), PreviewStoreError> {
        let _writing = self.writing();
        let (expired, forgotten) = {
            let known = self.known();
            let expired: Vec<_> = known
                .previews
                .values()
                .filter(|live| live.preview.has_expired(now))
                .map(|live| (live.hash, Tombstone { how: Ended::Expired, at: live.preview.expires }))
                .collect();
            let is_old = |tombstone: &Tombstone| {
                tombstone.at.saturating_add(REMEMBERED).is_ok_and(|until| until < now)
            };
            let old = known.ended.iter().filter(|(_, tombstone)| is_old(tombstone));
            (expired, old.map(|(hash, _)| *hash).collect::<Vec<_>>())
        };
        if expired.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        self.end(&expired, &forgotten)
    }

    /// Buries previews, with their visits, and clears old graves. `writing` is held.
    fn end(
        &self,
        buried: &[(PreviewHash, Tombstone)],
        forgotten: &[PreviewHash],
    ) -> Result<(), PreviewStoreError> {
        let visits: Vec<PreviewHash> = {
            let known = self.known();
            let ends = |of: &PreviewHash| buried.iter().any(|(hash, _)| hash == of);
            known.sessions.iter().filter(|(_, of)| ends(of)).map(|(visit, _)| *visit).collect()
        };
        let tombstones: Vec<_> = buried
            .iter()
            .map(|(hash, tombstone)| Ok((hash, json(tombstone)?)))
            .collect::<Result<_, PreviewStoreError>>()?;
        self.commit(|transaction| {
            let mut previews = transaction.open_table(PREVIEWS)?;
            let mut ended = transaction.open_table(ENDED)?;
            let mut sessions = transaction.open_table(SESSIONS)?;
            for (hash, tombstone) in &tombstones {
                previews.remove(&hash.as_bytes()[..])?;
                ended.insert(&hash.as_bytes()[..], tombstone.as_slice())?;
            }
            for visit in &visits {
                sessions.remove(&visit.as_bytes()[..])?;
            }
            for hash in forgotten {
                ended.remove(&hash.as_bytes()[..])?;
            }
            Ok(())
        })?;
        let mut known = self.known_mut();
        for (hash, tombstone) in buried {
            known.previews.remove(hash);
            known.ended.insert(*hash, *tombstone);
        }
        for visit in &visits {
            known.sessions.remove(visit);
        }
        for hash in forgotten {
            known.ended.remove(hash);
        }
        known.rename();
        drop(known);
        self.ends.send_modify(|ends| *ends += 1);
        Ok(())
    }

    /// Returns when the changes are on the disk.
    fn commit(
        &self,
        changes: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), PreviewStoreError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        changes(&transaction)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn read(database: &Database) -> Result<Self, PreviewStoreError> {
        let transaction = database.begin_write().map_err(redb::Error::from)?;
        for table in [PREVIEWS, ENDED, SESSIONS] {
            transaction.open_table(table).map_err(redb::Error::from)?;
        }
        transaction.commit().map_err(redb::Error::from)?;

        let mut previews = HashMap::new();
        for (hash, bytes) in rows(database, PREVIEWS)? {
            let hash = to_hash(&hash)?;
            let live = LivePreview::new(hash, parse(&bytes)?)
                .map_err(|error| PreviewStoreError::Damaged(error.to_string()))?;
            previews.insert(hash, Arc::new(live));
        }
        let mut ended = HashMap::new();
        for (hash, bytes) in rows(database, ENDED)? {
            ended.insert(to_hash(&hash)?, parse(&bytes)?);
        }
        let mut sessions = HashMap::new();
        for (visit, preview) in rows(database, SESSIONS)? {
            sessions.insert(to_hash(&visit)?, to_hash(&preview)?);
        }
        let mut known = Self { previews, ended, sessions, names: Arc::new(ContextNames::of([])) };
        known.rename();
        Ok(known)
    }

    /// After the previews have changed.
    fn rename(&mut self) {
        self.names = Arc::new(ContextNames::of(self.previews.values().map(|live| &live.context)));
    }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(database: &Database, table: TableDefinition<&[u8], &[u8]>) -> Result<Rows, PreviewStoreError> {
    let read = || -> Result<Rows, redb::Error> {
        let table = database.begin_read()?.open_table(table)?;
        let rows = table.iter()?.map(|row| {
            let (key, value) = row?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        });
        rows.collect()
    };
    read().map_err(|error| PreviewStoreError::Damaged(error.to_string()))
}

fn to_hash(bytes: &[u8]) -> Result<PreviewHash, PreviewStoreError> {
    let bytes =
        bytes.try_into().map_err(|_| PreviewStoreError::Damaged("a key has a wrong length".to_owned()))?;
    Ok(PreviewHash::from_bytes(bytes))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PreviewStoreError> {
    serde_json::from_slice(bytes).map_err(|error| PreviewStoreError::Damaged(error.to_string()))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, PreviewStoreError> {
    serde_json::to_vec(value).map_err(|error| PreviewStoreError::Damaged(error.to_string()))
}

/// The file has the keys of intercepts in it.
#[cfg(unix)]
fn close_to_others(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn close_to_others(path: &Path) -> io::Result<()> {
    fs::metadata(path).map(drop)
}

#[cfg(test)]
mod tests;
