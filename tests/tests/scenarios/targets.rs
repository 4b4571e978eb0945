//! What can be intercepted, what is refused, and what is said about it.

use std::{fs, path::PathBuf};

use lab::{Agent, App, Lab, cgroup_root, datapaths, eventually};
use serde_json::Value;

use crate::scene::{
    ALICE, LOCAL, PORT, Route, Scene, assert_routing, for_alice, in_lab, intercepted, who_answers,
};

#[test]
fn a_target_can_be_a_path_or_a_process() {
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let by_path = format!("netns:{}", lab.pod.netns.path().display());
        for target in [by_path, format!("pid:{}", app.process().pid())] {
            let alice = for_alice(lab, &agent).target(&target).start(lab);
            assert_routing(lab);
            assert!(alice.interrupt().success(), "{target}");
            assert_eq!(who_answers(lab, ALICE), "app", "{target}");
        }
    });
}

#[test]
fn a_target_can_be_a_container() {
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let container = Container::new(app.process().pid());
        for id in [container.id.as_str(), &container.id[..12]] {
            let alice = for_alice(lab, &agent).target(&format!("container:{id}")).start(lab);
            assert_routing(lab);
            assert!(alice.interrupt().success(), "{id}");
        }
        let refusal = for_alice(lab, &agent).target("container:0123456789ab").refused();
        assert!(refusal.stderr.contains("0123456789ab"), "{refusal:?}");
        drop(app);
    });
}

#[test]
fn two_ways_to_name_a_pod_are_one_target() {
    intercepted(|scene| {
        let target = format!("pid:{}", scene.app.process().pid());
        let refusal = for_alice(scene.lab, &scene.agent).target(&target).name("other").refused();
        assert!(!refusal.stderr.is_empty());
        scene.assert_routing();
    });
}

#[test]
fn the_hosts_own_network_is_refused() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        let own = lab.node.netns.target();
        for target in ["netns:/proc/1/ns/net", "pid:1", &own, &format!("pid:{}", agent.pid())] {
            let refusal = for_alice(lab, &agent).target(target).refused();
            assert!(refusal.stderr.contains("host"), "{target}: {refusal:?}");
        }
        assert_eq!(agent.list().len(), 0);
    });
}

#[test]
fn a_target_that_does_not_exist_is_refused_by_its_name() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        for target in
            ["netns:no-such-pod", "netns:/run/netns/no-such-pod", "pid:4194304", "container:0123456789ab"]
        {
            let refusal = for_alice(lab, &agent).target(target).refused();
            let name = target.split_once(':').unwrap().1;
            assert!(refusal.stderr.contains(name), "{target}: {refusal:?}");
        }
        // A file that is no network namespace.
        let refusal = for_alice(lab, &agent).target("netns:/proc/1/ns/uts").refused();
        assert!(refusal.stderr.contains("/proc/1/ns/uts"), "{refusal:?}");
    });
}

#[test]
fn a_pod_that_vanishes_while_intercepted_is_let_go() {
    in_lab(|lab| {
        let Scene { alice, mut agent, alice_app: _alice_app, app, .. } = Scene::new(lab);
        assert_routing(lab);
        drop(app);
        lab.delete_pod();
        // The agent must not keep the namespace alive: the kernel removes it, and with it the pod's end of the cable.
        eventually("the kernel removes the pod", || !lab.pod_exists());
        agent.assert_running();
        assert_eq!(agent.run(&["status"]).code, Some(0));
        drop(alice);
        eventually("the intercept is gone", || agent.list().is_empty());

        lab.recreate_pod();
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice = for_alice(lab, &agent).start(lab);
        assert_routing(lab);
    });
}

#[test]
fn a_port_that_a_mesh_redirects_is_refused_whatever_the_datapath() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        let rule = "PREROUTING -t nat -p tcp --dport 8080 -j REDIRECT --to-ports 15006";
        lab.pod.netns.sh(&format!("iptables -A {rule}"));
        for datapath in ["proxy", "inspect", "auto"] {
            let refusal = for_alice(lab, &agent).argument("--datapath").argument(datapath).refused();
            for words in ["iptables", "15006", "excludeInboundPorts"] {
                assert!(refusal.stderr.contains(words), "{datapath}: {refusal:?}");
            }
        }
        assert_eq!((agent.list().len(), lab.attached()), (0, Vec::new()));
        lab.pod.netns.sh(&format!("iptables -D {rule}"));
        let _alice = for_alice(lab, &agent).start(lab);
    });
}

#[test]
fn a_port_that_is_redirected_for_some_only_is_named() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        let rule = "PREROUTING -t nat -p tcp -s 10.77.0.9 --dport 8080 -j REDIRECT --to-ports 15006";
        lab.pod.netns.sh(&format!("iptables -A {rule}"));
        let alice = for_alice(lab, &agent).start(lab);
        eventually("the developer is told of the redirect", || alice.log().contains("iptables"));
        drop(alice);
        lab.pod.netns.sh(&format!("iptables -D {rule}"));
    });
}

#[test]
fn a_port_on_which_nothing_listens_is_said_to_the_developer() {
    for datapath in datapaths(&["proxy", "inspect", "auto"]) {
        in_lab(|lab| {
            let agent = Agent::start(lab);
            let alice = for_alice(lab, &agent).argument("--datapath").argument(datapath).start(lab);
            eventually("the developer is told that nothing listens", || {
                alice.log().contains("nothing listens")
            });
        });
    }
}

#[test]
fn targets_shows_what_can_be_intercepted() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        let targets = agent.json(&["targets"]);
        let ours =
            find(&targets, &lab.pod.netns.target()).unwrap_or_else(|| panic!("the pod is in {targets}"));
        assert!(ours.to_string().contains("8080"), "with the port its app listens on: {ours}");
        assert!(
            find(&targets, &lab.node.netns.target()).is_none(),
            "the agent's own network is none: {targets}"
        );
        assert_eq!(who_answers(lab, Route::Live.header()), "app");
    });
}

fn find<'a>(targets: &'a Value, target: &str) -> Option<&'a Value> {
    targets.as_array().expect("an array").iter().find(|entry| entry["target"] == target)
}

/// A process in a cgroup named as container runtimes name theirs.
struct Container {
    id: String,
    directory: PathBuf,
}

impl Container {
    fn new(pid: u32) -> Self {
        let id = format!("{pid:064x}").replace('0', "c");
        let directory = cgroup_root().join(format!("rdr{}-docker-{id}.scope", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let container = Self { id, directory };
        fs::write(container.directory.join("cgroup.procs"), pid.to_string()).unwrap();
        container
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A cgroup with processes cannot be removed, so they go back to the root.
        let processes = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            let _ = fs::write(cgroup_root().join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn an_intercept_leaves_other_pods_alone() {
    in_lab(|lab| {
        let other = Lab::new("beside");
        let scene = Scene::new(lab);
        let _other_app = App::echo(&other, &other.pod, "other", &[PORT]);
        assert_eq!(who_answers(&other, ALICE), "other");
        scene.assert_routing();
        assert_eq!(other.attached(), Vec::<String>::new());
    });
}
