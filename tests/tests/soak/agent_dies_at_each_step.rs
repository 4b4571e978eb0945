//! The agent stops and dies at each step of a move, one after the other: requests without the context never notice.

use std::{thread, time::Duration};

use lab::{Agent, Family, FrozenThreads, Lab, Software, eventually};

use crate::{
    exchange::{By, Number, Whose, answer, ask, connect, try_ask},
    live_load::{A_RETRANSMISSION, Client, with_live_load},
    scale::Scale,
    scene::{LOCAL, PORT, alice_inspects, alone_in_lab},
};

const LOAD: [Client; 2] = [Client::Keeps, Client::Reconnects];

/// A step: the thread that moves connections begins a system call, or comes back from one.
#[test]
fn requests_without_the_context_never_notice_at_which_step_of_a_move_the_agent_stops_and_dies() {
    alone_in_lab(|lab| {
        let between = Scale::chosen().steps_between;
        let _app = Software::Nginx.start(lab, &lab.pod, "app", PORT);
        let _alice_app = Software::Go.start(lab, &lab.dev, "alice", LOCAL);
        let (steps, load) = with_live_load(lab, &LOAD, &Family::BOTH, || {
            let mut step = 1;
            while !moves_before(lab, step) {
                step += between;
            }
            step
        });
        println!(
            "stopped and killed at {} of {steps} steps; {} live requests, the slowest in {:?}",
            (steps - 1) / between,
            load.answered,
            load.longest
        );
        assert!(steps > 20, "there are more steps than {steps}");
        assert!(load.longest < A_RETRANSMISSION, "{load:?}");
    });
}

/// Has an agent move a connection, stop at `step` of it, and die. True: the connection was moved by then.
fn moves_before(lab: &Lab, step: usize) -> bool {
    let agent = Agent::start(lab);
    let _developer = alice_inspects(lab, &agent);
    lab.client.netns.run(|| {
        let connected = |family| {
            let mut connection = connect(lab, family).unwrap();
            ask(&mut connection, Whose::Live);
            connection
        };
        let mut live = Family::BOTH.map(connected);
        let mut alices = connected(Family::BOTH[step % 2]);
        let frozen = FrozenThreads::at_step(agent.pid(), "parker", step);
        let number = Number::next();
        alices.send(Whose::Alice.get(number));
        thread::scope(|scope| {
            let answered = scope.spawn(move || answer(&mut alices, number).map(|(by, _)| by));
            eventually("the agent has come to the step, or has moved the connection", || {
                answered.is_finished() || frozen.are_still(Duration::from_millis(1))
            });
            let is_moved = answered.is_finished();
            live.iter_mut().for_each(|connection| ask(connection, Whose::Live));
            agent.kill_frozen(frozen);
            live.iter_mut().for_each(|connection| ask(connection, Whose::Live));
            for family in Family::BOTH {
                assert_eq!(try_ask(&mut connect(lab, family).unwrap(), Whose::Alice).unwrap(), By::App);
            }
            // By whom it was answered, if at all, depends on the step. But it does not wait for ever.
            let _ = answered.join().unwrap();
            is_moved
        })
    })
}
