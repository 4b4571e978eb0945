//! A door always closes: with what is attached to a real interface, in every way its thread can end. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use nix::sched::{CloneFlags, unshare};
use redirector::datapath::{AttachKind, Door, sweep};
use std::{process::Command, thread};

/// Runs `work` in a new network namespace with the interface `eth0`; the namespace goes with the thread.
fn in_new_netns(work: impl FnOnce() + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test attaches eBPF programs: run it as root");
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link add eth0 type veth peer name eth1");
        work();
    });
    thread.join().unwrap();
}

/// A command in the namespace of the calling thread; gives what it printed.
fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn attached() -> String {
    ["eth0", "eth1"]
        .map(|interface| {
            run(&format!("tc qdisc show dev {interface} clsact"))
                + &run(&format!("tc filter show dev {interface} ingress"))
        })
        .concat()
}

#[test]
fn a_door_that_is_dropped_leaves_nothing() {
    in_new_netns(|| {
        let (door, _heartbeat) = Door::open(AttachKind::Clsact, false).unwrap();
        assert_eq!(attached().matches("redirector_ingress direct-action").count(), 2, "{}", attached());
        drop(door);
        assert_eq!(attached(), "");
    });
}

#[test]
fn a_thread_that_panics_leaves_nothing() {
    for kind in [AttachKind::Clsact, AttachKind::Tcx] {
        in_new_netns(move || {
            let panicked = std::panic::catch_unwind(|| {
                let (_door, _heartbeat) = Door::open(kind, false).unwrap();
                panic!("as the test wants it");
            });
            assert!(panicked.is_err());
            assert_eq!(attached(), "");
        });
    }
}

#[test]
fn a_qdisc_of_somebody_else_stays() {
    in_new_netns(|| {
        run("tc qdisc add dev eth0 clsact");
        drop(Door::open(AttachKind::Clsact, false).unwrap());
        assert!(attached().contains("qdisc clsact"), "{}", attached());
        assert!(!attached().contains("redirector"), "{}", attached());
    });
}

#[test]
fn what_a_killed_agent_left_is_swept_and_what_a_living_one_has_is_not() {
    in_new_netns(|| {
        let (door, mut heartbeat) = Door::open(AttachKind::Clsact, false).unwrap();
        let beating = thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            // The sweep looks for a second beat, so it runs beside them.
            let swept = scope.spawn(move || {
                let swept = sweep();
                drop(stop);
                swept
            });
            while stopped
                .recv_timeout(std::time::Duration::from_millis(20))
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                heartbeat.beat().unwrap();
            }
            swept.join().unwrap().unwrap()
        });
        assert_eq!(beating, Vec::<String>::new());
        assert!(attached().contains("redirector_ingress"));

        // Forgotten, as SIGKILL would: the filters stay, the beats end.
        std::mem::forget(door);
        assert_eq!(sweep().unwrap().len(), 2);
        assert_eq!(attached(), "");
    });
}

#[test]
fn connections_of_the_app_can_be_inspected_where_there_is_tcx() {
    in_new_netns(|| {
        let (mut door, _heartbeat) = Door::open(AttachKind::Auto, false).unwrap();
        assert_eq!(door.inspection(), Ok(()));
        drop(door);
        let (mut door, _heartbeat) = Door::open(AttachKind::Clsact, false).unwrap();
        assert!(door.inspection().is_err_and(|reason| reason.contains("TCX")));
    });
}

#[test]
fn the_programs_that_inspect_are_loaded_on_first_asking_and_the_door_works_meanwhile() {
    in_new_netns(|| {
        let (mut door, _heartbeat) = Door::open(AttachKind::Auto, false).unwrap();
        let programs = door.unloaded().unwrap();
        // They are away.
        assert!(door.unloaded().is_none() && door.inspection().is_err());
        door.refresh().unwrap();
        door.loaded(thread::spawn(move || programs.load()).join().unwrap());
        assert_eq!(door.inspection(), Ok(()));
        assert!(door.unloaded().is_none());
    });
}
