//! What the processes of a lab wrote, kept so that a failed test can show it.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// The lines that one process wrote so far, in the order they came.
#[derive(Clone, Debug)]
pub struct Log {
    process: Arc<str>,
    lines: Arc<Mutex<Vec<(Stream, String)>>>,
}

impl Log {
    /// Collects `source` in a thread of its own, which ends with the source.
    pub(crate) fn collect(&self, stream: Stream, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                log.lock().push((stream, text));
                line.clear();
            }
        })
    }

    /// All lines of one stream.
    #[must_use]
    pub fn lines(&self, stream: Stream) -> Vec<String> {
        self.lock().iter().filter(|(from, _)| *from == stream).map(|(_, text)| text.clone()).collect()
    }

    /// All lines of both streams.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lock().iter().map(|(_, text)| text.clone()).collect()
    }

    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.lock().iter().any(|(_, line)| line.contains(text))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Stream, String)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 60;
        let lines = self.lock();
        let skipped = lines.len().saturating_sub(SHOWN);
        writeln!(f, "--- {} ({} lines, first {skipped} not shown)", self.process, lines.len())?;
        lines.iter().skip(skipped).try_for_each(|(_, text)| writeln!(f, "    {text}"))
    }
}

/// The logs of all processes of one lab, also of those that have ended.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<Vec<Log>>>);

impl Logs {
    pub(crate) fn open(&self, process: &str) -> Log {
        let log = Log { process: process.into(), lines: Arc::default() };
        self.lock().push(log.clone());
        log
    }

    /// The lines, of any process, that contain `text`.
    #[must_use]
    pub fn matching(&self, text: &str) -> Vec<String> {
        self.lock().iter().flat_map(Log::all).filter(|line| line.contains(text)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Log>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().iter().try_for_each(|log| log.fmt(f))
    }
}
