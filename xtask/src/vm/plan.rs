//! Which tests run in a machine, and which don't, and why.
//!
//! What a kernel can do is not looked up by its version: `redirector check` tries it in the machine, and the script runs
//! `inspecting` or `proxying` accordingly.

use std::fmt::Write as _;

use crate::vm::{accelerator::Accelerator, kernel::Kernel, staged::Staged};

/// Tests of the kernel's side alone, in `redirector/tests`. `scenarios` are those of `tests/tests`.
const EVERYWHERE: [&str; 3] = ["door", "redirect_rules", "target"];
const INSPECTION: [&str; 9] = [
    "check",
    "inspection",
    "inspection_bad_wire",
    "inspection_early_answers",
    "inspection_of_older",
    "inspection_only_requests",
    "inspection_parts",
    "inspection_segments",
    "scan_in_kernel",
];

/// Where the kernel matters most: attaching and detaching, failing open, the client's address, the states of a connection's life,
/// and connections that are read, moved and ended.
const SCENARIOS: &[&str] = &[
    "addresses::nginx_logs_the_clients_address",
    "addresses::requests_are_routed",
    "app_lifecycle::a_client_port_in_time_wait",
    "app_lifecycle::an_app_that_restarts",
    "attach::",
    "big_packets::a_parked_connection",
    "datapaths::with_auto",
    "fail_open::after_sig",
    "fail_open::an_agent_that_hangs",
    "http2_routes::nginx_serves",
    "keep_alive::requests_on_one_connection",
    "late_sockets::behind_tcp_defer_accept_every_request",
    "no_ethernet::connections_over_a_tun",
    "packets::connections_are_routed_while_the_pod_sends_syn_cookies",
    "parking::a_connection_that_existed_before",
    "parking::a_head_in_two_segments",
    "parking::a_request_that_waited",
    "parking::curl_keeps",
    "parking::parked_connection_sees_no_reset",
    "parking::requests_that_overtake",
    "status::status_counts",
    "uncovered::an_older_connection_is_closed",
];

/// What can't be where connections are not inspected. (Scenarios with each datapath run with the one there is:
/// `REDIRECTOR_LAB_DATAPATHS`.)
const NOT_WHERE_PROXIED: &[Left] = &[
    Left {
        reason: "inspection is what they show; that it is refused, and why, shows attach::without_tcx_it_says_that_inspection_needs_it",
        names: &[
            "connections_of_the_app_can_be_inspected",
            "the_programs_that_inspect_are_loaded",
            "big_packets::",
            "busy_apps::",
            "late_sockets::",
            "no_ethernet::",
            "parking::",
            "parking_limits::",
            "parking_parts::",
            "parking_under_load::",
            "parked_apps::",
            "path_mtu::",
            "port_reuse::",
            "uncovered::status_names_what_inspection",
            "uncovered::a_connection_that_inspection_covers",
        ],
    },
    Left { reason: "`auto` has another reason there not to inspect", names: &["datapaths::"] },
    Left {
        reason: "they attach with TCX",
        names: &[
            "attach::clsact_does_the_same_job_as_tcx",
            "attach::after_sigkill_tcx",
            "attach::programs_and_filters_of_others",
        ],
    },
    Left {
        reason: "a killed agent's clsact stays until the next one starts, as attach::after_sigkill_a_clsact_filter_is_inert shows",
        names: &[
            "attach::no_getpeername_program_outlives_the_agent",
            "fail_open::after_sigkill_the_app_answers_at_once",
        ],
    },
];

/// What can't be where a socket does not tell the cookie of its network namespace (before 5.14): apps see the agent's address there.
const NOT_WITHOUT_COOKIE: Left = Left {
    reason: "the app does not see the client's address there, as `redirector check` says",
    names: &[
        "addresses::a_dual_stack",
        "addresses::accept_and_getpeername",
        "addresses::an_app_with_a_listener_per_family",
        "addresses::nginx_logs",
    ],
};

/// Tests that are left out.
struct Left {
    reason: &'static str,
    /// Parts of their names.
    names: &'static [&'static str],
}

/// The script for a machine, which [`guest.sh`](guest.sh) carries out.
pub fn script(
    staged: &Staged,
    kernel: &Kernel,
    only: &[String],
    all: bool,
    accelerator: Accelerator,
) -> String {
    let emulated = accelerator == Accelerator::Emulation;
    let only: Vec<&str> = only.iter().map(String::as_str).collect();
    let scenarios = if all || !only.is_empty() { only.as_slice() } else { SCENARIOS };
    let [redirector, lab] =
        [&staged.redirector, &staged.lab].map(|directory| quoted(&directory.display().to_string()));

    let mut inspecting = String::new();
    for test in EVERYWHERE.iter().chain(&INSPECTION) {
        let _ = writeln!(inspecting, "run {redirector} {test} {}", words(&only));
    }
    let _ = writeln!(inspecting, "run {lab} scenarios {} $more", words(scenarios));

    let mut proxying = String::new();
    let mut skips = String::new();
    for Left { reason, names } in NOT_WHERE_PROXIED {
        let _ = writeln!(proxying, "echo {}", quoted(&format!("not here: {}: {reason}", names.join(", "))));
        skips += &skip(names);
    }
    let Left { reason, names } = &NOT_WITHOUT_COOKIE;
    let said = quoted(&format!("not here: {}: {reason}", names.join(", ")));
    for test in EVERYWHERE {
        let _ = writeln!(proxying, "run {redirector} {test} {}{skips}", words(&only));
    }
    let _ = writeln!(proxying, "run {lab} scenarios {}{skips} $more", words(scenarios));

    let value = |path: &std::path::Path| quoted(&path.display().to_string());
    format!(
        "modules={} stage={} test_tools={} again={}\n\
         inspecting() {{\n{inspecting}}}\nproxying() {{\n{proxying}}}\n\
         without_cookie() {{\necho {said}\nmore={}\n}}\n{}",
        value(&kernel.modules()),
        value(&staged.directory),
        value(&staged.test_tools),
        if emulated { "1" } else { "" },
        quoted(&names.iter().map(|name| format!(" --skip {name}")).collect::<String>()),
        include_str!("guest.sh"),
    )
}

fn skip(names: &[&str]) -> String {
    names.iter().map(|name| format!(" --skip {}", quoted(name))).collect()
}

fn words(names: &[&str]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" ")
}

/// For the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// As the tests of a file are called, when its functions are in `module`.
    fn tests_of(file: &Path, module: &str) -> Vec<String> {
        let source = fs::read_to_string(file).unwrap();
        let functions =
            source.split("#[test]\n").skip(1).filter_map(|test| test.split_once("fn ")?.1.split_once('('));
        functions.map(|(name, _)| format!("{module}{name}")).collect()
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn scenarios() -> Vec<String> {
        let files =
            fs::read_dir(root().join("tests/tests/scenarios")).unwrap().map(|entry| entry.unwrap().path());
        files
            .flat_map(|file| tests_of(&file, &format!("{}::", file.file_stem().unwrap().display())))
            .collect()
    }

    fn tests_of_the_kernels_side() -> Vec<String> {
        let files = EVERYWHERE.iter().chain(&INSPECTION);
        files.flat_map(|name| tests_of(&root().join(format!("redirector/tests/{name}.rs")), "")).collect()
    }

    #[test]
    fn each_name_is_one_of_a_test() {
        let scenarios = scenarios();
        let all = [scenarios.clone(), tests_of_the_kernels_side()].concat();
        for name in SCENARIOS {
            assert!(scenarios.iter().any(|test| test.contains(name)), "no scenario is called {name}");
        }
        for Left { names, .. } in NOT_WHERE_PROXIED.iter().chain([&NOT_WITHOUT_COOKIE]) {
            for name in *names {
                assert!(all.iter().any(|test| test.contains(name)), "no test is called {name}");
            }
        }
    }
}
