//! The keys of a new intercept: those that its developer sent, and those that are files of the target.

use crate::{
    api::{PemSource, TlsPair},
    engine::tls::{self, InterceptKeys, KeyError, TlsKey},
    target::{
        resolve::ResolvedTarget,
        root::{TargetRoot, TargetRootError},
    },
};
use std::path::Path;
use thiserror::Error;

/// The largest PEM file, in bytes. A certificate with its chain has some thousand.
const MAX_PEM: u64 = 64 * 1024;

/// The longest path (PATH_MAX of Linux), in bytes.
const MAX_PATH: usize = 4096;

/// More than a port has.
const MAX_PAIRS: usize = 16;

/// Why the keys of an intercept can't be used.
#[derive(Debug, Error)]
pub enum TlsKeysError {
    #[error("{0}")]
    Target(#[from] TargetRootError),
    #[error("TLS certificate {number}{place}: {error}")]
    Certificate { number: usize, place: String, error: KeyError },
    #[error("TLS key {number}{place}: {error}")]
    Key { number: usize, place: String, error: KeyError },
    #[error(
        "an intercept may have {MAX_PAIRS} TLS certificates with keys, of {MAX_PEM} bytes each at most, or with paths of \
         {MAX_PATH} printable characters"
    )]
    Oversized,
    #[error("cannot look for the keys: {0}")]
    Lookup(#[from] tokio::task::JoinError),
}

/// Reads and checks the keys. Those in the target's files are read again when the app's certificate changes.
pub async fn load(
    pairs: Vec<TlsPair>,
    target: &ResolvedTarget,
    port: u16,
) -> Result<InterceptKeys, TlsKeysError> {
    if pairs.is_empty() {
        return Ok(InterceptKeys::default());
    }
    if pairs.len() > MAX_PAIRS || sources(&pairs).any(is_oversized) {
        return Err(TlsKeysError::Oversized);
    }
    let in_files = sources(&pairs).any(is_file);
    let target = target.clone();
    let read = move || read(&pairs, &target, port);
    let (read, keys) = tokio::task::spawn_blocking(move || {
        let keys = read();
        (read, keys)
    })
    .await?;
    let keys = InterceptKeys::new(keys?);
    if !in_files {
        return Ok(keys);
    }
    Ok(keys.read_again_by(move || {
        read().inspect_err(|error| tracing::warn!(%error, "the target's TLS keys can't be read again")).ok()
    }))
}

fn sources(pairs: &[TlsPair]) -> impl Iterator<Item = &PemSource> {
    pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key])
}

/// Paths are shown and logged.
fn is_oversized(source: &PemSource) -> bool {
    match source {
        PemSource::Pem(text) => text.len() as u64 > MAX_PEM,
        PemSource::Target(path) => path.len() > MAX_PATH || path.chars().any(char::is_control),
    }
}

fn is_file(source: &PemSource) -> bool {
    matches!(source, PemSource::Target(_))
}

fn read(pairs: &[TlsPair], target: &ResolvedTarget, port: u16) -> Result<Vec<TlsKey>, TlsKeysError> {
    let root = if sources(pairs).any(is_file) { Some(TargetRoot::of(target, port)?) } else { None };
    let text = |source: &PemSource| match (source, &root) {
        (PemSource::Pem(text), _) => Ok(text.clone().into_bytes()),
        (PemSource::Target(path), Some(root)) => root.read(Path::new(path), MAX_PEM),
        (PemSource::Target(_), None) => Err(TargetRootError::NoProcess),
    };
    let key = |(at, pair): (usize, &TlsPair)| {
        let number = at + 1;
        let of_certificate =
            |error| TlsKeysError::Certificate { number, place: place(&pair.certificate), error };
        let of_key = |error| TlsKeysError::Key { number, place: place(&pair.key), error };
        let (certificate, private_key) = (text(&pair.certificate)?, text(&pair.key)?);
        let certificate = tls::certificate(&certificate).map_err(of_certificate)?;
        let private_key = tls::private_key(&private_key).map_err(of_key)?;
        TlsKey::new(certificate, private_key).map_err(|error| match error {
            KeyError::Mismatch => of_key(error),
            other => of_certificate(other),
        })
    };
    pairs.iter().enumerate().map(key).collect()
}

/// For messages: which file.
fn place(source: &PemSource) -> String {
    match source {
        PemSource::Pem(_) => String::new(),
        PemSource::Target(path) => format!(" ({path} inside the target)"),
    }
}
