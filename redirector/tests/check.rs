//! `redirector check` on the machine that runs the tests, which must be able to run the agent. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use std::path::Path;
use std::process::Command;

use redirector::check::{Status, cgroup2_root, run};
use redirector::target::netns::NetnsId;

fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test loads eBPF programs: run it as root");
}

#[test]
fn this_machine_is_usable_and_every_probe_of_the_kernel_succeeds() {
    require_root();
    let report = run();
    println!("{report}");
    assert!(report.usable(), "{report}");
    let kernel = report
        .items
        .iter()
        .filter(|item| ["program:", "map:", "helper:"].iter().any(|kind| item.name.starts_with(kind)));
    assert_eq!(kernel.clone().count(), 19);
    for item in kernel {
        assert_eq!(item.status, Status::Ok, "{item}");
    }
}

#[test]
fn checking_leaves_the_thread_in_its_namespace() {
    require_root();
    let own = || NetnsId::of_path(Path::new("/proc/thread-self/ns/net")).unwrap();
    let before = own();
    let _ = run();
    assert_eq!(own(), before);
}

#[test]
fn the_cgroup2_root_is_a_real_one() {
    let root = cgroup2_root().unwrap();
    assert!(root.join("cgroup.controllers").exists(), "{}", root.display());
}

/// Runs this test binary again as nobody: the report must say what is missing and fail no other way.
#[test]
fn without_rights_the_report_says_so() {
    const CHILD: &str = "REDIRECTOR_CHECK_UNPRIVILEGED";
    if std::env::var_os(CHILD).is_some() {
        println!("{}", run());
        return;
    }
    require_root();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "without_rights_the_report_says_so", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("This machine cannot run the agent"), "{text}");
    assert!(text.contains("run as root"), "{text}");
}
