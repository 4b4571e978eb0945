//! Connections are parked, and agents die, while live requests go on.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use lab::{Agent, Connection, Family, Lab, eventually};
use nix::sys::signal::Signal;

use crate::parking::{Waiting, ask, connect, request};
use crate::scene::{for_alice, in_lab, served_by};

#[test]
fn every_answer_is_right_under_live_load() {
    const FRESH: usize = 300;
    const KEPT: usize = 100;
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let mut kept: Vec<Connection> = (0..KEPT).map(|n| waiting.connect(Family::BOTH[n % 2])).collect();
        for connection in &mut kept {
            ask(connection, false);
        }
        let _alice = waiting.intercept("inspect");
        with_live_load(lab, || {
            for (number, connection) in kept.iter_mut().enumerate() {
                ask(connection, false);
                ask(connection, true);
                ask(connection, number % 2 == 0);
            }
            for number in 0..FRESH {
                let mut connection = waiting.connect(Family::BOTH[number % 2]);
                ask(&mut connection, true);
                ask(&mut connection, number % 3 == 0);
            }
        });
        assert!(waiting.counted("parked") >= (FRESH + KEPT) as u64 - waiting.counted("given_back"));
    });
}

/// Runs `work` while other connections carry requests for the app, each of which it must answer.
#[track_caller]
fn with_live_load<T>(lab: &Lab, work: impl FnOnce() -> T) -> T {
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = thread::scope(|scope| {
        for number in 0..4 {
            let (done, answered) = (&done, &answered);
            scope.spawn(move || {
                let mut connection = connect(lab, Family::BOTH[number % 2]);
                while !done.load(Relaxed) {
                    ask(&mut connection, false);
                    answered.fetch_add(1, Relaxed);
                    if number == 3 {
                        connection = connect(lab, Family::BOTH[answered.load(Relaxed) % 2]);
                    }
                }
            });
        }
        let finish = Finish(&done);
        let outcome = work();
        drop(finish);
        outcome
    });
    assert!(answered.into_inner() > 10, "there was a load");
    outcome
}

/// Ends the load, also when the work panics.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn requests_without_the_context_never_fail_when_the_agent_dies() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        in_lab(|lab| {
            let waiting = Waiting::new(lab);
            let alice = waiting.intercept("inspect");
            let servers = with_live_load(lab, || {
                for _ in 0..10 {
                    let answer = connect(lab, Family::V4).ask(request("/whoami", true));
                    assert_eq!(served_by(&answer), "alice", "{}", waiting.agent.json(&["status"]));
                }
                if signal == Signal::SIGSTOP {
                    waiting.agent.freeze();
                }
                let Waiting { agent, alice_app: _alice_app, app: _app, .. } = waiting;
                let frozen = if signal == Signal::SIGKILL {
                    agent.kill();
                    None
                } else {
                    Some(agent)
                };
                // What is held when it stops, or shortly after, is the app's again.
                for number in 0..20 {
                    let mut connection = connect(lab, Family::BOTH[number % 2]);
                    let answer = connection.ask(request("/whoami", true));
                    assert_eq!(served_by(&answer), "app", "{signal} {number}");
                    ask(&mut connection, false);
                }
                if let Some(agent) = &frozen {
                    agent.thaw();
                    eventually("alice answers again", || {
                        served_by(&connect(lab, Family::V4).ask(request("/whoami", true))) == "alice"
                    });
                }
                drop(alice);
                (frozen, _alice_app, _app)
            });
            drop(servers);
        });
    }
}

#[test]
fn requests_without_the_context_never_fail_however_often_the_agent_is_killed() {
    const KILLS: u64 = 8;
    in_lab(|lab| {
        let Waiting { mut agent, alice_app: _alice_app, app: _app, .. } = Waiting::new(lab);
        let alice = for_alice(lab, &agent).argument("--datapath").argument("inspect").start(lab);
        with_live_load(lab, || {
            for number in 0..KILLS {
                eventually("alice answers", || {
                    let mut connection = connect(lab, Family::V4);
                    connection.send(request("/whoami", true));
                    connection.try_response("GET").is_ok_and(|answer| served_by(&answer) == "alice")
                });
                let killed = AtomicBool::new(false);
                thread::scope(|scope| {
                    // Always something that is held, moving, or parked. What alice gets may be cut off.
                    for _ in 0..2 {
                        scope.spawn(|| {
                            while !killed.load(Relaxed) {
                                let mut connection = connect(lab, Family::V4);
                                let _ = connection.try_send(request("/whoami", true));
                                let _ = connection.try_response("GET");
                            }
                        });
                    }
                    thread::sleep(Duration::from_micros(20_000 + 1_337 * number));
                    agent.kill();
                    killed.store(true, Relaxed);
                });
                agent = Agent::start(lab);
            }
        });
        drop(alice);
    });
}
