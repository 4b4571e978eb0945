//! What the inspection of live connections costs the kernel: when its programs are loaded, and for each request. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use aya::EbpfLoader;
use aya::programs::{SchedClassifier, loaded_programs};
use aya::sys::{Stats, enable_stats};
use inspected::{POD, names, ready, with_client};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REDIRECTOR_EBPF_OBJECT"));

/// The verifier gives up at a million, and takes a second for that. Kernels differ in how much they look at.
const MOST_INSTRUCTIONS: u32 = 100_000;

#[test]
fn the_verifier_has_little_to_look_at() {
    assert!(nix::unistd::geteuid().is_root(), "this test loads eBPF programs: run it as root");
    // As for x86-64, and as for ARM64.
    for weakly_ordered in [0_u8, 1] {
        let mut loader = EbpfLoader::new();
        let mut object =
            loader.override_global("WEAKLY_ORDERED", &weakly_ordered, true).load(OBJECT).unwrap();
        for name in ["redirector_ingress", "redirector_inspect", "redirector_egress"] {
            let program: &mut SchedClassifier = object.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
            let verified = program.info().unwrap().verified_instruction_count().unwrap();
            println!("{name}: {verified}");
            assert!(verified < MOST_INSTRUCTIONS, "{name}: {verified}");
        }
    }
}

const REQUEST: &str = "GET /index.html?a=b HTTP/1.1\r\nHost: 10.78.0.2:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.5\r\nCache-Control: no-cache\r\nX-Request-Id: 0123456789abcdef0123456789abcdef\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
const ANSWER_HEAD: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 09:55:14 GMT\r\nContent-Type: text/html\r\nContent-Length: 600\r\nLast-Modified: Tue, 24 Nov 2026 09:46:14 GMT\r\nConnection: keep-alive\r\nETag: \"6924-258\"\r\nAccept-Ranges: bytes\r\n\r\n";

/// Not a test of anything: `cargo test --test inspection_cost -- --ignored --nocapture`. The least of many batches is what
/// it costs on a machine that does nothing else. Keeping the time costs some of it, as the port that is not inspected shows.
#[test]
#[ignore = "a measurement"]
fn what_a_live_request_costs() {
    with_client(|client| {
        let _stats = enable_stats(Stats::RunTime).unwrap();
        for (port, inspected, what) in [(8081, 8080, "not inspected"), (8082, 8082, "inspected")] {
            client.in_pod(move |pod| {
                let listener = TcpListener::bind((POD, port)).unwrap();
                thread::spawn(move || serve(&listener));
                pod.door().watch(inspected, &names()).unwrap();
            });
            measure(port, what);
            measure_new_connections(port, &format!("{what}, a new connection"), REQUEST);
            let closing = REQUEST.replace("Cache-Control: no-cache", "Connection: close\r\nA: 0");
            measure_new_connections(port, &format!("{what}, one that says that it closes"), &closing);
        }
    });
}

/// An app that takes the same request again and again.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        thread::spawn(move || {
            let mut request = vec![0; REQUEST.len()];
            while stream.read_exact(&mut request).is_ok() && stream.write_all(&answer()).is_ok() {}
        });
    }
}

fn answer() -> Vec<u8> {
    [ANSWER_HEAD.as_bytes(), &[b'x'; 600]].concat()
}

fn measure(port: u16, what: &str) {
    let mut connection = ready(TcpStream::connect((POD, port)).unwrap());
    let mut read = answer();
    let exchange = || {
        connection.write_all(REQUEST.as_bytes()).unwrap();
        connection.read_exact(&mut read).unwrap();
    };
    report(what, exchange);
}

fn report(what: &str, mut exchange: impl FnMut()) {
    const REQUESTS: u32 = 500;
    // Each connection takes a port of the client, which has 28,000.
    const BATCHES: usize = 25;
    let mut costs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for batch in 0..=BATCHES {
        let before = times();
        (0..REQUESTS).for_each(|_| exchange());
        // The first one warms up.
        if batch == 0 {
            continue;
        }
        for (name, time) in times() {
            costs.entry(name.clone()).or_default().push((time - before[&name]) as f64 / f64::from(REQUESTS));
        }
    }
    for (name, mut costs) in costs {
        costs.sort_by(f64::total_cmp);
        println!("{what}, {name}: {:.0} ns a request, median {:.0}", costs[0], costs[BATCHES / 2]);
    }
}

/// The same with a connection for each request, which the client ends. The request is as long as [`REQUEST`].
fn measure_new_connections(port: u16, what: &str, request: &str) {
    assert_eq!(request.len(), REQUEST.len());
    let mut read = answer();
    let exchange = || {
        let mut connection = ready(TcpStream::connect((POD, port)).unwrap());
        connection.write_all(request.as_bytes()).unwrap();
        connection.read_exact(&mut read).unwrap();
    };
    report(what, exchange);
}

/// Nanoseconds in this process's programs so far, by name.
fn times() -> BTreeMap<String, u64> {
    let names: BTreeMap<u64, String> = loaded_programs()
        .filter_map(Result::ok)
        .map(|program| (u64::from(program.id()), program.name_as_str().unwrap().to_owned()))
        .collect();
    fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .filter_map(|info| {
            let name = names.get(&field(&info, "prog_id:")?)?.clone();
            Some((name, field(&info, "run_time_ns:")?))
        })
        .collect()
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}
