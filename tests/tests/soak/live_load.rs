//! Requests for the app, as many as the machine gives, while something else is tried. Each must be answered by the app.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use lab::{Connection, Family, Lab};

use crate::exchange::{By, Number, Whose, answer, connect};

/// No request without the context waits for longer. A segment that is held when the agent stops passes when the client
/// sends it again: Linux does so after 200 ms (`TCP_RTO_MIN`), and 400 ms after that if it had to do it twice. One that was
/// lost three times would wait for 1.4 s. The rest is for a machine that is busy.
pub const A_RETRANSMISSION: Duration = Duration::from_millis(1300);

/// How a client of the load asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// On one connection all the time.
    Keeps,
    /// On a new connection each time.
    Reconnects,
    /// On one connection all the time, each head in two segments.
    Halves,
}

/// What became of the load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub answered: u64,
    /// The longest that a request waited for its answer, connecting included.
    pub longest: Duration,
    /// How many waited for longer than a half of the least retransmission timeout of Linux.
    pub slow: u64,
    /// How many connections ended with the agent, which had them because of clients that were [late](Lateness).
    pub lost: u64,
}

const SLOW: Duration = Duration::from_millis(100);

/// When a client that sends its heads in two segments was last slow: on a busy machine the second may have been late. From then on
/// the agent takes what comes in parts from that address, for as long as is remembered, and what it has ends with it (README).
#[derive(Debug, Default)]
struct Lateness(Mutex<Option<Instant>>);

const REMEMBERED: Duration = Duration::from_secs(11);

/// Runs `work` while `clients` ask, in these families in turns.
#[track_caller]
pub fn with_live_load<T>(
    lab: &Lab,
    clients: &[Client],
    families: &[Family],
    work: impl FnOnce() -> T,
) -> (T, Load) {
    let (done, load) = (AtomicBool::new(false), Mutex::new(Load::default()));
    let lateness = Lateness::default();
    let outcome = thread::scope(|scope| {
        // Also when the work panics.
        let finish = Finish(&done);
        let clients = clients.iter().zip(families.iter().cycle());
        let clients: Vec<_> = clients
            .map(|(client, family)| {
                let (done, load, lateness) = (&done, &load, &lateness);
                scope.spawn(move || {
                    let one = lab.client.netns.run(|| client.ask_until(lab, *family, done, lateness));
                    load.lock().unwrap_or_else(PoisonError::into_inner).add(one);
                })
            })
            .collect();
        let outcome = work();
        assert!(!clients.iter().any(thread::ScopedJoinHandle::is_finished), "a client of the load gave up");
        drop(finish);
        outcome
    });
    let load = load.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(load.answered > 100, "there was a load: {load:?}");
    (outcome, load)
}

impl Client {
    fn ask_until(self, lab: &Lab, family: Family, done: &AtomicBool, lateness: &Lateness) -> Load {
        let mut load = Load::default();
        let mut kept = None;
        let mut may_be_the_agents = false;
        while !done.load(Relaxed) {
            let start = Instant::now();
            let mut connection = kept.take().unwrap_or_else(|| connect(lab, family).expect("connect"));
            may_be_the_agents |= self == Self::Halves && lateness.is_remembered();
            let by = match self.ask(&mut connection) {
                Ok(by) => by,
                Err(_) if may_be_the_agents => {
                    may_be_the_agents = false;
                    load.lost += 1;
                    continue;
                }
                Err(error) => panic!("{self:?} on {}: {error}", connection.local_address()),
            };
            let took = start.elapsed();
            if self == Self::Halves && took > SLOW {
                lateness.note();
            }
            load.answered += 1;
            load.longest = load.longest.max(took);
            load.slow += u64::from(took > SLOW);
            assert_eq!(by, By::App);
            kept = Some(connection).filter(|_| self != Self::Reconnects);
        }
        load
    }

    fn ask(self, connection: &mut Connection) -> io::Result<By> {
        let number = Number::next();
        let request = Whose::Live.get(number);
        if self == Self::Halves {
            let (first, second) = request.split_at(request.len() / 2);
            connection.try_send(first)?;
            connection.try_send(second)?;
        } else {
            connection.try_send(request)?;
        }
        Ok(answer(connection, number)?.0)
    }
}

impl Lateness {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_remembered(&self) -> bool {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < REMEMBERED)
    }
}

impl Load {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.longest = self.longest.max(other.longest);
        self.slow += other.slow;
        self.lost += other.lost;
    }
}

/// Ends the load when dropped.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
