//! stub
use crate::http1::RequestView;
#[derive(Debug, Clone)] pub struct Matcher;
impl Matcher { pub fn matches(&self, _r: &RequestView<'_>) -> bool { false } }
