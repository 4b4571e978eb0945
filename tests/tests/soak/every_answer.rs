//! Every answer is right, whichever server the app runs on: of first requests that match, on fresh connections and on
//! those that are older than the intercept, while others ask the app as fast as they can. No error on either side.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use lab::{Agent, Connection, Lab, Software, Wire};

use crate::{
    exchange::{By, Whose, ask, connect, try_ask},
    live_load::{Client, with_live_load},
    scale::Scale,
    scene::{Counted, LOCAL, PORT, alice, alone_in_lab, explained},
};

/// Who ask for alice at once.
const WORKERS: usize = 8;

const LOAD: [Client; 4] = [Client::Keeps, Client::Keeps, Client::Reconnects, Client::Keeps];

/// One in so many connections may be the app's because the machine has other things to do.
const FEW: u64 = 20;

/// Connections that have been quiet for so long when they are intercepted may need no exchange before alice's first
/// request.
const QUIET: Duration = Duration::from_millis(1200);

#[test]
fn every_answer_is_right_with_nginx() {
    every_answer_is_right(Software::Nginx);
}

#[test]
fn every_answer_is_right_with_node() {
    every_answer_is_right(Software::Node);
}

#[test]
fn every_answer_is_right_with_gunicorn() {
    every_answer_is_right(Software::Gunicorn);
}

#[test]
fn every_answer_is_right_with_uvicorn() {
    every_answer_is_right(Software::Uvicorn);
}

#[test]
fn every_answer_is_right_with_java() {
    every_answer_is_right(Software::Java);
}

#[test]
fn every_answer_is_right_with_go() {
    every_answer_is_right(Software::Go);
}

#[test]
fn every_answer_is_right_with_apache_prefork() {
    every_answer_is_right(Software::ApachePrefork);
}

#[test]
fn every_answer_is_right_with_apache_event() {
    every_answer_is_right(Software::ApacheEvent);
}

fn every_answer_is_right(software: Software) {
    alone_in_lab(|lab| {
        let Scale { fresh, long_lived, intercepts, .. } = Scale::chosen();
        let app = software.start(lab, &lab.pod, "app", PORT);
        let _alice_app = Software::Go.start(lab, &lab.dev, "alice", LOCAL);
        let agent = Agent::start(lab);
        let wire = Wire::of_pod(lab);
        let start = Instant::now();
        let [missed, unsure] = [const { AtomicU64::new(0) }; 2];
        let (counted, load) = with_live_load(lab, &LOAD, software.families(), || {
            let mut counted = Counted::default();
            for _ in 0..intercepts {
                let kept = open(lab, software, long_lived / intercepts);
                let alice = alice(lab, &agent);
                explained(&agent, || {
                    ask_on_kept(lab, kept, &missed, &unsure);
                    ask_on_fresh(lab, software, fresh / intercepts, &missed);
                });
                counted = Counted::by(&agent);
                assert!(alice.interrupt().success());
            }
            counted
        });
        let resets = wire.resets(lab);
        println!(
            "{software:?}: {fresh} fresh and {long_lived} older connections, {} live requests in {:.1} s, the \
             slowest in {:?}, {} slow; {} resets after the end, {} of alice's missed, {} unsure; {counted}",
            load.answered,
            start.elapsed().as_secs_f64(),
            load.longest,
            load.slow,
            resets.after_the_end.len(),
            missed.load(Relaxed),
            unsure.load(Relaxed)
        );
        assert_eq!(resets.early, Vec::<String>::new());
        assert_eq!(software.errors(&app), Vec::<String>::new());
        // The agent may not have been given a processor in time, or be in doubt: this is counted, and the app answers.
        let (missed, unsure, all) = (missed.into_inner(), unsure.into_inner(), (fresh + long_lived) as u64);
        let failed_open = ["hold_expired", "given_back", "agent_silent", "refused_at_boundary"];
        let failed_open: u64 = failed_open.iter().map(|name| counted.of(name)).sum();
        assert!(missed + unsure <= failed_open, "{missed} of alice's got to the app: {counted}");
        assert!(missed * FEW <= all, "{missed} of alice's got to the app: {counted}");
        assert!(counted.of("parked") + missed >= all, "{missed}: {counted}");
        assert_eq!(counted.of("falsely_parked"), 0, "{counted}");
    });
}

/// Connections that have carried a request, and then been quiet.
fn open(lab: &Lab, software: Software, count: usize) -> Vec<Connection> {
    let families = software.families();
    lab.client.netns.run(|| {
        let opened = (0..count).map(|number| {
            let mut connection = connect(lab, families[number % families.len()]).expect("connect");
            ask(&mut connection, Whose::Live);
            connection
        });
        let opened = opened.collect();
        thread::sleep(QUIET);
        opened
    })
}

/// Alice's at once on some of them, live on the others, then alice's, then mixed.
fn ask_on_kept(lab: &Lab, mut connections: Vec<Connection>, missed: &AtomicU64, unsure: &AtomicU64) {
    let each = connections.len().div_ceil(WORKERS).max(1);
    lab.client.netns.run(|| {
        thread::scope(|scope| {
            for connections in connections.chunks_mut(each) {
                scope.spawn(move || {
                    for (number, connection) in connections.iter_mut().enumerate() {
                        if number % 4 == 0 {
                            ask_for_alice(connection, unsure);
                        }
                        for _ in 0..number % 4 {
                            ask(connection, Whose::Live);
                        }
                        ask_for_alice(connection, missed);
                    }
                    for turn in 0..4 {
                        for (number, connection) in connections.iter_mut().enumerate() {
                            ask_one(connection, (turn + number) % 3 == 0, missed);
                        }
                    }
                });
            }
        });
    });
}

/// Matching, and then on some of them more.
fn ask_on_fresh(lab: &Lab, software: Software, count: usize, missed: &AtomicU64) {
    let families = software.families();
    lab.client.netns.run(|| {
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                scope.spawn(move || {
                    for number in (worker..count).step_by(WORKERS) {
                        let family = families[number / WORKERS % families.len()];
                        let mut connection = connect(lab, family).expect("connect");
                        ask_for_alice(&mut connection, missed);
                        for turn in 0..number % 4 {
                            ask_one(&mut connection, turn == 1, missed);
                        }
                    }
                });
            }
        });
    });
}

fn ask_one(connection: &mut Connection, alices: bool, missed: &AtomicU64) {
    if alices { ask_for_alice(connection, missed) } else { ask(connection, Whose::Live) }
}

/// Counts what the app answers in her place.
fn ask_for_alice(connection: &mut Connection, missed: &AtomicU64) {
    let by = try_ask(connection, Whose::Alice);
    match by.unwrap_or_else(|error| panic!("alice's on {}: {error}", connection.local_address())) {
        By::Alice => {}
        By::App => {
            missed.fetch_add(1, Relaxed);
        }
    }
}
