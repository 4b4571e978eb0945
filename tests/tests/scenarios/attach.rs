//! How the program is attached to the pod's devices, and that it goes away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lab::{
    Agent, AgentOptions, App, Direction, Lab, PassAll, cgroup_peername_programs, eventually, tcx_programs,
};
use nix::sys::signal::Signal;

use crate::scene::{
    ALICE, LOCAL, PORT, Route, alone_in_lab, assert_routing, eventually_answers, for_alice, in_lab,
    who_answers,
};

#[test]
fn clsact_does_the_same_job_as_tcx() {
    for mode in ["clsact", "tcx"] {
        in_lab(|lab| {
            let apps = apps(lab);
            let agent = Agent::start_with(lab, &AgentOptions::attach(mode));
            let alice = for_alice(lab, &agent).start(lab);
            assert_routing(lab);
            let attached = lab.attached().join("\n");
            assert_eq!(attached.contains("clsact"), mode == "clsact", "{mode}: {attached}");
            assert_eq!(attached.contains("TCX"), mode == "tcx", "{mode}: {attached}");
            assert!(alice.interrupt().success());
            assert_eq!(lab.attached(), Vec::<String>::new(), "{mode}");
            drop((agent, apps));
        });
    }
}

#[test]
fn without_tcx_it_says_that_inspection_needs_it() {
    in_lab(|lab| {
        let agent = Agent::start_with(lab, &AgentOptions::attach("clsact"));
        let refusal = for_alice(lab, &agent).argument("--datapath").argument("inspect").refused();
        assert!(refusal.stderr.contains("TCX links (kernel 6.6)"), "{refusal:?}");
    });
}

#[test]
fn after_sigkill_a_clsact_filter_is_inert_and_the_next_start_sweeps_it() {
    in_lab(|lab| {
        let _apps = apps(lab);
        let options = AgentOptions::attach("clsact");
        let agent = Agent::start_with(lab, &options);
        let alice = for_alice(lab, &agent).start(lab);
        assert_routing(lab);
        agent.kill();
        assert!(
            !lab.attached().is_empty(),
            "clsact outlives its process: otherwise there is nothing to sweep"
        );
        for header in [Route::Live.header(), ALICE] {
            assert_eq!(who_answers(lab, header), "app", "{header}");
        }
        alice.kill();
        let _agent = Agent::start_with(lab, &options);
        eventually("the filter is swept", || lab.attached().is_empty());
        assert_eq!(who_answers(lab, ALICE), "app");
    });
}

#[test]
fn a_swept_clsact_is_attached_again_for_the_developer_who_comes_back() {
    in_lab(|lab| {
        let _apps = apps(lab);
        let options = AgentOptions::attach("clsact");
        let agent = Agent::start_with(lab, &options);
        let _alice = for_alice(lab, &agent).start(lab);
        agent.kill();
        let _agent = Agent::start_with(lab, &options);
        eventually_answers(lab, ALICE, "alice");
        assert_routing(lab);
        let filters = lab.pod.netns.sh("tc filter show dev eth0 ingress");
        assert_eq!(filters.matches("direct-action").count(), 1, "one filter, not two:\n{filters}");
    });
}

#[test]
fn after_sigkill_tcx_links_are_gone() {
    in_lab(|lab| {
        let _apps = apps(lab);
        let agent = Agent::start_with(lab, &AgentOptions::attach("tcx"));
        let _alice = for_alice(lab, &agent).start(lab);
        assert!(!lab.attached().is_empty());
        agent.kill();
        eventually("nothing is attached", || lab.attached().is_empty());
    });
}

#[test]
fn programs_and_filters_of_others_stay() {
    in_lab(|lab| {
        let _apps = apps(lab);
        let theirs =
            PassAll::attach(&lab.pod.netns, "eth0", Direction::Ingress).expect("attach (needs Linux 6.6)");
        let agent = Agent::start_with(lab, &AgentOptions::attach("tcx"));
        let alice = for_alice(lab, &agent).start(lab);
        assert_routing(lab);
        assert_eq!(tcx_programs(&lab.pod.netns, Direction::Ingress), [("eth0".to_owned(), 2)]);
        assert!(alice.interrupt().success());
        drop(agent);
        assert_eq!(tcx_programs(&lab.pod.netns, Direction::Ingress), [("eth0".to_owned(), 1)]);
        drop(theirs);

        lab.pod.netns.sh("tc qdisc add dev eth0 clsact");
        lab.pod.netns.sh("tc filter add dev eth0 ingress pref 7 protocol ip u32 match u32 0 0 flowid 1:1");
        let agent = Agent::start_with(lab, &AgentOptions::attach("clsact"));
        let alice = for_alice(lab, &agent).start(lab);
        assert_eq!(who_answers(lab, Route::Live.header()), "app");
        assert!(alice.interrupt().success());
        drop(agent);
        let filters = lab.pod.netns.sh("tc filter show dev eth0 ingress");
        assert!(filters.contains("u32") && !filters.contains("bpf"), "theirs stays, ours goes:\n{filters}");
        lab.pod.netns.sh("tc qdisc del dev eth0 clsact");
    });
}

#[test]
fn no_getpeername_program_outlives_the_agent() {
    type End = fn(Agent);
    let ends: [End; 2] = [Agent::kill, |agent| assert!(agent.stop(Signal::SIGTERM).success())];
    for end in ends {
        alone_in_lab(|lab| {
            let families: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let before = families.map(cgroup_peername_programs);
            let _apps = apps(lab);
            let agent = Agent::start(lab);
            let _alice = for_alice(lab, &agent).start(lab);
            assert_routing(lab);
            let during = families.map(cgroup_peername_programs);
            assert!(during[0] > before[0] && during[1] > before[1], "{before:?} {during:?}");
            end(agent);
            eventually("the programs are gone", || families.map(cgroup_peername_programs) == before);
        });
    }
}

fn apps(lab: &Lab) -> [App; 2] {
    [App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL])]
}
