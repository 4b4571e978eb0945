//! Several intercepts on one port.

use lab::{Agent, App, Intercept, Lab};

use crate::scene::{
    ALICE, LOCAL, PORT, assert_routing, eventually_answers, intercepted, served_by, who_answers,
};

const BOB: &str = "x-dev: bob";
const BOBS_LOCAL: u16 = 3001;

#[test]
fn two_developers_share_a_port_by_different_values() {
    intercepted(|scene| {
        let lab = scene.lab;
        let _bob_app = App::echo(lab, &lab.dev, "bob", &[BOBS_LOCAL]);
        let bob = for_bob(lab, &scene.agent, "bob").start(lab);
        let mut connection = scene.connect();
        for (header, server) in
            [(BOB, "bob"), ("x-dev: carol", "app"), (ALICE, "alice"), (BOB, "bob"), (ALICE, "alice")]
        {
            let answer = connection.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n"));
            assert_eq!(served_by(&answer), server, "{header}");
        }

        assert!(bob.interrupt().success());
        eventually_answers(lab, BOB, "app");
        assert_routing(lab);
    });
}

#[test]
fn a_name_that_is_taken_is_refused() {
    intercepted(|scene| {
        let lab = scene.lab;
        let refusal = for_bob_named(lab, &scene.agent, "bob", "alice").refused();
        assert!(refusal.stderr.contains("alice"), "{refusal:?}");
        assert_eq!(who_answers(lab, BOB), "app");
        assert_routing(lab);
    });
}

#[test]
fn one_developer_intercepts_two_ports_of_a_pod() {
    intercepted(|scene| {
        let lab = scene.lab;
        let second = Intercept::new(lab, &scene.agent, crate::scene::DIRECT, LOCAL)
            .header("x-dev", "alice")
            .name("second");
        let second = second.start(lab);
        let ask = |header| {
            served_by(&crate::scene::ask_whoami(&lab.client, lab.pod.at(crate::scene::DIRECT), header))
        };
        assert_eq!((ask(ALICE).as_str(), ask(BOB).as_str()), ("alice", "app"));
        assert_routing(lab);
        assert!(second.interrupt().success());
        assert_eq!(ask(ALICE), "app");
        assert_routing(lab);
    });
}

fn for_bob(lab: &Lab, agent: &Agent, value: &str) -> Intercept {
    for_bob_named(lab, agent, value, "bob")
}

fn for_bob_named(lab: &Lab, agent: &Agent, value: &str, name: &str) -> Intercept {
    Intercept::new(lab, agent, PORT, BOBS_LOCAL).header("x-dev", value).name(name)
}
