//! Every answer is right, whichever server the app runs on: of first requests that match, on fresh connections and on
//! those that are older than the intercept, while others ask the app as fast as they can. No error on either side.

use std::{thread, time::Instant};

use lab::{Agent, Connection, Lab, Resets, Software};

use crate::{
    exchange::{Whose, ask, connect},
    live_load::{Client, with_live_load},
    scale::Scale,
    scene::{Counted, LOCAL, PORT, alice, alone_in_lab},
};

/// Who ask for alice at once.
const WORKERS: usize = 8;

const LOAD: [Client; 4] = [Client::Keeps, Client::Keeps, Client::Reconnects, Client::Keeps];

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
        let resets = Resets::of_pod(lab);
        let start = Instant::now();
        let (counted, load) = with_live_load(lab, &LOAD, software.families(), || {
            let mut counted = Counted::default();
            for _ in 0..intercepts {
                let kept = open(lab, software, long_lived / intercepts);
                let alice = alice(lab, &agent);
                ask_on_kept(lab, kept);
                ask_on_fresh(lab, software, fresh / intercepts);
                counted = Counted::by(&agent);
                assert!(alice.interrupt().success());
            }
            counted
        });
        println!(
            "{software:?}: {fresh} fresh and {long_lived} older connections, {} live requests in {:.1} s, the \
             slowest in {:?}, {} slow; {counted}",
            load.answered,
            start.elapsed().as_secs_f64(),
            load.longest,
            load.slow
        );
        assert_eq!(resets.until_now(lab), Vec::<String>::new());
        assert_eq!(software.errors(&app), Vec::<String>::new());
        assert_eq!(counted.of("parked"), (fresh + long_lived) as u64, "{counted}");
        assert_eq!(counted.of("falsely_parked"), 0, "{counted}");
    });
}

/// Connections that have carried a request.
fn open(lab: &Lab, software: Software, count: usize) -> Vec<Connection> {
    let families = software.families();
    lab.client.netns.run(|| {
        let opened = (0..count).map(|number| {
            let mut connection = connect(lab, families[number % families.len()]).expect("connect");
            ask(&mut connection, Whose::Live);
            connection
        });
        opened.collect()
    })
}

/// Live, then matching, then mixed.
fn ask_on_kept(lab: &Lab, mut connections: Vec<Connection>) {
    let each = connections.len().div_ceil(WORKERS).max(1);
    lab.client.netns.run(|| {
        thread::scope(|scope| {
            for connections in connections.chunks_mut(each) {
                scope.spawn(move || {
                    for (number, connection) in connections.iter_mut().enumerate() {
                        for _ in 0..=number % 3 {
                            ask(connection, Whose::Live);
                        }
                        ask(connection, Whose::Alice);
                    }
                    for turn in 0..4 {
                        for (number, connection) in connections.iter_mut().enumerate() {
                            ask(connection, Whose::alices_if((turn + number) % 3 == 0));
                        }
                    }
                });
            }
        });
    });
}

/// Matching, and then on some of them more.
fn ask_on_fresh(lab: &Lab, software: Software, count: usize) {
    let families = software.families();
    lab.client.netns.run(|| {
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                scope.spawn(move || {
                    for number in (worker..count).step_by(WORKERS) {
                        let family = families[number / WORKERS % families.len()];
                        let mut connection = connect(lab, family).expect("connect");
                        ask(&mut connection, Whose::Alice);
                        for turn in 0..number % 4 {
                            ask(&mut connection, Whose::alices_if(turn == 1));
                        }
                    }
                });
            }
        });
    });
}
