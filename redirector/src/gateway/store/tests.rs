//! The store by itself; killed in the middle it is in the namespace tests.

use super::*;
use crate::{
    context::{Condition, Matcher},
    gateway::preview::{Access, Preview, PreviewWhenAway},
};
use http::HeaderMap;

fn live(name: &str, header: &str, expires: i64) -> (PreviewId, LivePreview) {
    let id = PreviewId::random().unwrap();
    let preview = Preview {
        name: name.to_owned(),
        owner: "alice@laptop".to_owned(),
        token: Some("abcdefgh".parse().unwrap()),
        token_name: "default".to_owned(),
        matcher: Matcher { conditions: vec![Condition::Header(header.parse().unwrap())] },
        created: Timestamp::UNIX_EPOCH,
        expires: at(expires),
        access: Access::Link,
        password: None,
        id: None,
        when_away: PreviewWhenAway::Page,
    };
    (id.clone(), LivePreview::new(id.hash(), preview).unwrap())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn strips(store: &PreviewStore, name: &'static str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert(name, "x".parse().unwrap());
    crate::gateway::injection::strip(&mut headers, &store.names());
    headers.is_empty()
}

#[test]
fn what_was_created_and_removed_is_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = PreviewStore::open(dir.path(), at(0)).unwrap();
    let ((kept, one), (gone, other)) = (live("kept", "x-a=1", 100), live("gone", "x-b=1", 100));
    store.create(one).unwrap();
    store.create(other).unwrap();
    store.remove("gone", at(5)).unwrap();
    let visit = store.open_session(kept.hash()).unwrap();
    drop(store);

    let store = PreviewStore::open(dir.path(), at(10)).unwrap();
    assert!(matches!(store.find(kept.hash(), at(10)), Found::Live(live) if live.preview.name == "kept"));
    assert!(matches!(store.find(gone.hash(), at(10)), Found::Ended(Ended::Removed)));
    assert!(matches!(store.find(PreviewId::random().unwrap().hash(), at(10)), Found::Unknown));
    assert_eq!(store.session(&visit), Some(kept.hash()));
    assert!(strips(&store, "x-a") && !strips(&store, "x-b"));
    assert!(matches!(store.remove("gone", at(10)), Err(PreviewStoreError::Unknown(_))));
}

#[test]
fn a_preview_expires_without_anybody_doing_anything() {
    let dir = tempfile::tempdir().unwrap();
    let store = PreviewStore::open(dir.path(), at(0)).unwrap();
    let (id, preview) = live("short", "x-a=1", 100);
    store.create(preview).unwrap();
    let visit = store.open_session(id.hash()).unwrap();
    assert!(matches!(store.find(id.hash(), at(99)), Found::Live(_)));
    assert!(matches!(store.find(id.hash(), at(100)), Found::Ended(Ended::Expired)));
    assert_eq!((store.list(at(99)).len(), store.list(at(100)).len()), (1, 0));
    store.sweep(at(100)).unwrap();
    assert!(matches!(store.find(id.hash(), at(100)), Found::Ended(Ended::Expired)));
    assert_eq!(store.session(&visit), None);
    store.sweep(at(100 + 31 * 24 * 3600)).unwrap();
    assert!(matches!(store.find(id.hash(), at(100)), Found::Unknown));
}

#[test]
fn names_are_one_of_a_kind_and_tokens_take_their_previews_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = PreviewStore::open(dir.path(), at(0)).unwrap();
    store.create(live("a", "x-a=1", 100).1).unwrap();
    assert!(matches!(store.create(live("a", "x-a=1", 100).1), Err(PreviewStoreError::NameTaken(_))));
    store.create(live("b", "x-a=1", 100).1).unwrap();
    store.remove_of(&"zzzzzzzz".parse().unwrap(), at(1)).unwrap();
    assert_eq!(store.list(at(1)).len(), 2);
    store.remove_of(&"abcdefgh".parse().unwrap(), at(1)).unwrap();
    assert_eq!(store.list(at(1)).len(), 0);
}

#[test]
fn the_file_has_no_id_in_it_and_is_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = PreviewStore::open(dir.path(), at(0)).unwrap();
    let (id, preview) = live("a", "x-a=1", 100);
    store.create(preview).unwrap();
    let visit = store.open_session(id.hash()).unwrap();
    drop(store);
    let path = dir.path().join(FILE);
    let bytes = fs::read(&path).unwrap();
    for secret in [&id, &visit] {
        let secret = secret.as_str().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn two_gateways_cannot_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let _store = PreviewStore::open(dir.path(), at(0)).unwrap();
    assert!(matches!(PreviewStore::open(dir.path(), at(0)), Err(PreviewStoreError::InUse(_))));
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_preview_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = PreviewStore::open(dir.path(), at(0)).unwrap();
    let (id, preview) = live("a", "x-a=1", 100);
    store.create(preview).unwrap();
    let (removed, ()) = tokio::join!(
        tokio::time::timeout(std::time::Duration::from_secs(20), store.removed(id.hash())),
        async { store.remove("a", at(1)).unwrap() }
    );
    assert!(removed.is_ok());
}
