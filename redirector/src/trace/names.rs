//! What a target is called.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// More of them nobody needs.
const MOST: usize = 64;

/// The names by which a target was intercepted or observed, as long as that did not end; also those that come later.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    pub fn add(&self, name: String) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MOST {
            names.insert(name);
        }
    }

    #[must_use]
    pub fn any(&self, is_it: impl FnMut(&String) -> bool) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_it)
    }
}

/// They are of the same target.
impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
