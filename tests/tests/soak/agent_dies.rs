//! The agent is killed or stopped at any moment: requests without the context never notice.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use lab::{Agent, Family, Lab, Software, eventually};

use crate::{
    exchange::{By, Whose, connect, try_ask},
    live_load::{A_RETRANSMISSION, Client, with_live_load},
    scale::{Scale, seed},
    scene::{Counted, LOCAL, PORT, alice_inspects, alone_in_lab},
};

const LOAD: [Client; 5] = [Client::Keeps, Client::Keeps, Client::Reconnects, Client::Halves, Client::Halves];

#[test]
fn requests_without_the_context_never_notice_when_the_agent_is_killed_or_stopped() {
    alone_in_lab(|lab| {
        let deaths = Scale::chosen().deaths;
        let mut rng = Rng::with_seed(seed());
        let _app = Software::Nginx.start(lab, &lab.pod, "app", PORT);
        let _alice_app = Software::Go.start(lab, &lab.dev, "alice", LOCAL);
        let agent = Agent::start(lab);
        let developer = alice_inspects(lab, &agent);
        let matching = Matching::default();
        let start = Instant::now();
        let ((agent, kills), load) = with_live_load(lab, &LOAD, &Family::BOTH, || {
            matching.while_asking(lab, || {
                let (mut agent, mut kills) = (agent, 0);
                for _ in 0..deaths {
                    eventually("alice answers", || alice_answers(lab));

                    thread::sleep(Duration::from_micros(rng.u64(0..100_000)));
                    let for_a_while = Duration::from_micros(rng.u64(0..1_000_000));
                    if rng.bool() {
                        kills += 1;
                        agent.kill();
                        thread::sleep(for_a_while / 2);
                        agent = Agent::start(lab);
                    } else {
                        agent.freeze();
                        thread::sleep(for_a_while);
                        agent.thaw();
                    }
                }
                eventually("alice answers", || alice_answers(lab));
                // Otherwise the connections of the load would all be the app's, untouched, since the first time.
                eventually("heads in two segments are followed", || Counted::by(&agent).of("joined") > 0);
                (agent, kills)
            })
        });
        println!(
            "killed {kills} times, stopped {} times, in {:.1} s; {} live requests, the slowest in {:?}, {} slow, {} lost; {matching:?}",
            deaths - kills,
            start.elapsed().as_secs_f64(),
            load.answered,
            load.longest,
            load.slow,
            load.lost
        );
        assert!(load.longest < A_RETRANSMISSION, "{load:?}");
        drop(developer);
        drop(agent);
    });
}

fn alice_answers(lab: &Lab) -> bool {
    let asked = lab.client.netns.run(|| {
        let mut connection = connect(lab, Family::V4)?;
        try_ask(&mut connection, Whose::Alice)
    });
    asked.is_ok_and(|by| by == By::Alice)
}

/// Requests with the context, so that there is always something that is held, moving, or parked. What alice gets may be
/// cut off; what comes in its place is right.
#[derive(Debug, Default)]
struct Matching {
    by_alice: AtomicU64,
    by_app: AtomicU64,
    failed: AtomicU64,
}

impl Matching {
    fn while_asking<T>(&self, lab: &Lab, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let _done = Done(&done);
            for requests in [1, 1, 10] {
                let done = &done;
                scope.spawn(move || {
                    lab.client.netns.run(|| {
                        while !done.load(Relaxed) {
                            self.ask(lab, requests);
                        }
                    });
                });
            }
            work()
        })
    }

    /// On one connection, the first and then each other one with the context.
    fn ask(&self, lab: &Lab, requests: usize) {
        let mut connection = connect(lab, Family::V6).expect("connect");
        for number in 0..requests {
            let whose = Whose::alices_if(number % 2 == 0);
            let Ok(by) = try_ask(&mut connection, whose) else {
                self.failed.fetch_add(1, Relaxed);
                return;
            };
            match (whose, by) {
                (Whose::Alice, By::Alice) => self.by_alice.fetch_add(1, Relaxed),
                (Whose::Alice, By::App) => self.by_app.fetch_add(1, Relaxed),
                (_, by) => {
                    assert_eq!(by, By::App);
                    0
                }
            };
        }
    }
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
