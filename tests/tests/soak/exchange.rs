//! One request and its answer, which says who gave it and to which request.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use lab::{Connection, Family, Lab, Response};

use crate::scene::PORT;

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It has nothing in common with what is looked for.
    Live,
    /// It has the header that is looked for, with the value of another developer.
    Other,
    /// It has alice's context.
    Alice,
}

/// Every request of a run has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u64);

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    App,
    Alice,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Number {
    pub fn next() -> Self {
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Whose {
    pub fn server(self) -> By {
        match self {
            Self::Live | Self::Other => By::App,
            Self::Alice => By::Alice,
        }
    }

    pub fn header(self) -> &'static str {
        match self {
            Self::Live => "x-other: nobody",
            Self::Other => "x-dev: bob",
            Self::Alice => "x-dev: alice",
        }
    }

    /// A request without a body.
    pub fn get(self, number: Number) -> String {
        let header = self.header();
        format!("GET /answer?{number} HTTP/1.1\r\nHost: pod.test\r\n{header}\r\n\r\n")
    }

    /// Of requests that are alice's and the app's in turns.
    pub fn alices_if(condition: bool) -> Self {
        if condition { Self::Alice } else { Self::Live }
    }
}

/// A connection to the intercepted port. Call it in the client's namespace.
pub fn connect(lab: &Lab, family: Family) -> io::Result<Connection> {
    Connection::open(SocketAddr::new(lab.pod.ip(family), PORT))
}

/// Reads the answer to `number`, and says who gave it. An answer to another request is no answer, but a failed test.
#[track_caller]
pub fn answer(connection: &mut Connection, number: Number) -> io::Result<(By, Response)> {
    let answer = connection.try_response("GET")?;
    let by = match answer.header("x-answer").and_then(|text| text.split_once(' ')) {
        Some((by, answered)) if answered == number.to_string() => by,
        _ => panic!("not the answer to {number}: {}", answer.text()),
    };
    let by = match by {
        "app" => By::App,
        "alice" => By::Alice,
        _ => panic!("not signed: {}", answer.text()),
    };
    assert_eq!(answer.status, 200, "{}", answer.text());
    Ok((by, answer))
}

/// Sends a request without a body, and gives who answered.
#[track_caller]
pub fn try_ask(connection: &mut Connection, whose: Whose) -> io::Result<By> {
    let number = Number::next();
    connection.try_send(whose.get(number))?;
    Ok(answer(connection, number)?.0)
}

/// The same; it must be answered by who it is for.
#[track_caller]
pub fn ask(connection: &mut Connection, whose: Whose) {
    let by = try_ask(connection, whose);
    let by = by.unwrap_or_else(|error| panic!("{whose:?} on {}: {error}", connection.local_address()));
    assert_eq!(by, whose.server(), "{whose:?} on {}", connection.local_address());
}
