//! Whatever happens to the agent, new connections are answered; and when it is back, so is the developer.

use lab::{Agent, Family, FrozenThreads, Lab, datapaths, eventually};
use nix::sys::signal::Signal;

use crate::parking::{ask, connect};
use crate::scene::{
    ALICE, PORT, Route, Scene, assert_routing, eventually_answers, for_alice, in_lab, intercepted_by,
    served_by, who_answers,
};

#[test]
fn after_sigkill_the_app_answers_at_once() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        assert_routing(lab);
        agent.kill();
        for header in [Route::Live.header(), ALICE] {
            assert_eq!(who_answers(lab, header), "app", "{header}");
        }
        drop(alice);
    });
}

#[test]
fn after_sigterm_and_sigint_the_app_answers_and_nothing_is_attached() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        in_lab(|lab| {
            let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
            assert_routing(lab);
            assert!(!lab.attached().is_empty(), "while it intercepts, something is attached");
            assert_eq!(agent.stop(signal).code(), Some(0), "{signal}");
            assert_eq!(lab.attached(), Vec::<String>::new(), "{signal}");
            let listeners = lab.pod.netns.sh("ss -Hltn");
            assert!(
                listeners.lines().all(|line| line.contains(":8080") || line.contains(":8081")),
                "{listeners}"
            );
            for header in [Route::Live.header(), ALICE] {
                assert_eq!(who_answers(lab, header), "app", "{signal} {header}");
            }
            drop(alice);
        });
    }
}

#[test]
fn an_agent_that_hangs_does_not_hold_up_the_app() {
    in_lab(|lab| {
        let scene = Scene::new(lab);
        assert_routing(lab);
        scene.agent.freeze();
        for header in [Route::Live.header(), ALICE] {
            eventually_answers(lab, header, "app");
        }
        // From now on every new connection, not one in two.
        for _ in 0..20 {
            assert_eq!(who_answers(lab, ALICE), "app");
        }
        scene.agent.thaw();
        eventually_answers(lab, ALICE, "alice");
        assert_routing(lab);
    });
}

/// As in a deadlock, of which the rest of the agent knows nothing.
#[test]
fn an_agent_with_a_thread_that_hangs_does_not_hold_up_the_app() {
    for (datapath, threads) in
        [("proxy", &["heart", "worker"][..]), ("inspect", &["heart", "parker", "worker"])]
    {
        if datapaths(&[datapath]).is_empty() {
            continue;
        }
        intercepted_by(datapath, |scene| {
            for thread in threads {
                hangs(scene, datapath, thread);
            }
        });
    }
}

fn hangs(scene: &Scene<'_>, datapath: &str, thread: &str) {
    let lab = scene.lab;
    let mut live = connect(lab, Family::V4);
    ask(&mut live, false);
    let frozen = FrozenThreads::of(scene.agent.pid(), thread);
    for header in [Route::Live.header(), ALICE] {
        eventually_answers(lab, header, "app");
    }
    for _ in 0..20 {
        assert_eq!(who_answers(lab, ALICE), "app", "{datapath} {thread}");
    }
    // Through the agent it has an end there.
    if datapath == "inspect" {
        ask(&mut live, false);
    }
    drop(frozen);
    eventually_answers(lab, ALICE, "alice");
    assert_routing(lab);
    ask(&mut live, false);
}

#[test]
fn a_developer_comes_back_by_itself_after_the_agent_was_killed() {
    in_lab(|lab| restarted(lab, Agent::kill));
}

#[test]
fn a_developer_comes_back_by_itself_after_the_agent_was_restarted() {
    in_lab(|lab| {
        restarted(lab, |agent| {
            agent.stop(Signal::SIGTERM);
        });
    });
}

#[test]
fn a_live_request_is_finished_while_the_agent_is_told_to_end() {
    in_lab(|lab| {
        let Scene { alice: _alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice", "the agent carries it");
        connection.send(Route::Live.get("/slow?ms=500"));
        assert!(agent.stop(Signal::SIGTERM).success());
        assert_eq!(served_by(&connection.response("GET")), "app");
    });
}

#[test]
fn ten_restarts_in_a_row_leave_one_intercept() {
    in_lab(|lab| {
        let Scene { alice: _alice, mut agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        for _ in 0..10 {
            agent.kill();
            agent = Agent::start(lab);
        }
        eventually_answers(lab, ALICE, "alice");
        eventually("one intercept is listed", || agent.list().len() == 1);
        assert_routing(lab);
    });
}

/// Ends the agent with `end`, starts it again, and sees alice's intercept work again.
fn restarted(lab: &Lab, end: impl Fn(Agent)) {
    let Scene { alice: _alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
    end(agent);
    assert_eq!(who_answers(lab, ALICE), "app");
    let agent = Agent::start(lab);
    eventually_answers(lab, ALICE, "alice");
    assert_routing(lab);
    let list = agent.list();
    assert_eq!(
        (list.len(), list[0]["name"].as_str(), list[0]["connected"].as_bool()),
        (1, Some("alice"), Some(true))
    );
    // The old intercept is the same one, not a second beside it.
    let _refusal = for_alice(lab, &agent).name("again").refused();
}
