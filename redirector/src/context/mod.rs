//! Context matching: does a request carry a developer's context?
