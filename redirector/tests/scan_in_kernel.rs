//! The scanners in the kernel, where the verifier has had its say, see what they see here. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

mod http1;
mod scanning;

use aya::maps::{Array, HashMap, MapData};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use http1::{Message, any_request, any_response, http_like_bytes};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redirector::http1::MethodKind;
use redirector_common::scan::NoNeedles;
use redirector_common::{Needle, Rehearsal};
use scanning::{
    BEFORE, BLOCKS, Scanned, Seen, Wanted, any_matcher, matches_of, request_with_context, scan_requests,
    scan_responses,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REDIRECTOR_EBPF_OBJECT"));

/// What fits into a page with all that the kernel needs besides.
const LONGEST: usize = 3000;

struct Kernel {
    object: Ebpf,
    needles: HashMap<MapData, Needle, u32>,
    starts: Array<MapData, u64>,
}

impl Kernel {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test loads eBPF programs: run it as root");
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        let program: &mut SchedClassifier =
            object.program_mut("redirector_rehearse").unwrap().try_into().unwrap();
        program.load().unwrap();
        let needles = HashMap::try_from(object.take_map("NEEDLES").unwrap()).unwrap();
        let starts = Array::try_from(object.take_map("STARTS").unwrap()).unwrap();
        Self { object, needles, starts }
    }

    /// As if it were the first that is read.
    fn run(&self, mode: u8, payload: &[u8]) -> Rehearsal {
        self.run_behind_another(Rehearsal::REQUESTS, &BEFORE);
        self.run_behind_another(mode, payload)
    }

    fn run_behind_another(&self, mode: u8, payload: &[u8]) -> Rehearsal {
        let program: &SchedClassifier =
            self.object.program("redirector_rehearse").unwrap().try_into().unwrap();
        let mut packet = vec![mode];
        packet.resize(14, 0);
        packet.extend(payload);
        let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::default() };
        Rehearsal::from_verdict(program.test_run(options).unwrap().return_value)
    }

    fn look_for(&mut self, wanted: &Wanted) {
        let old: Vec<Needle> = self.needles.keys().map(Result::unwrap).collect();
        for needle in old {
            self.needles.remove(&needle).unwrap();
        }
        let kinds = [
            (Needle::HEADER, &wanted.headers),
            (Needle::LIST, &wanted.lists),
            (Needle::MEMBER, &wanted.members),
        ];
        self.starts.set(0, wanted.lines.to_bits(), 0).unwrap();
        self.starts.set(1, u64::from(wanted.member_starts.to_bits()), 0).unwrap();
        for (kind, hashes) in kinds {
            for &hash in hashes {
                self.needles.insert(Needle { port: 0, kind, hash }, 1, 0).unwrap();
            }
        }
    }
}

fn expected((seen, raw): &Scanned, is_end: impl Fn(&Seen) -> bool, interesting: usize) -> (u8, u8, bool) {
    let ended = seen.iter().filter(|seen| is_end(seen)).count();
    (ended as u8, interesting as u8, *raw)
}

fn check<S: Strategy>(
    cases: u32,
    strategy: S,
    mut property: impl FnMut(S::Value) -> Result<(), TestCaseError>,
) {
    let property = std::cell::RefCell::new(&mut property);
    let config = Config { failure_persistence: None, ..Config::with_cases(cases) };
    TestRunner::new(config).run(&strategy, |value| (property.borrow_mut())(value)).unwrap();
}

/// Streams of all kinds, whole, damaged, and cut off anywhere.
fn any_stream(message: impl Strategy<Value = Message>) -> impl Strategy<Value = Vec<u8>> {
    let whole = prop::collection::vec(message, 1..5)
        .prop_map(|messages| messages.iter().flat_map(Message::bytes).collect::<Vec<u8>>());
    let stream = prop_oneof![whole, http_like_bytes(), prop::collection::vec(any::<u8>(), 1..300)];
    let damage = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (stream, damage, prop::option::of(any::<prop::sample::Index>())).prop_map(|(mut stream, damage, cut)| {
        stream.push(b'G');
        if let Some((at, byte)) = damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.truncate(cut.map_or(LONGEST, |cut| cut.index(stream.len()) + 1));
        stream.truncate(LONGEST);
        stream
    })
}

#[test]
fn the_kernel_reads_requests_as_they_are_read_here() {
    let kernel = Kernel::new();
    check(3000, any_stream(any_request()), |stream| {
        let (scanned, _) = scan_requests(&stream, &NoNeedles, BLOCKS[0]);
        let seen = kernel.run(Rehearsal::REQUESTS, &stream);
        prop_assert!(seen.finished);
        let expected = expected(&scanned, |seen| matches!(seen, Seen::Head(_)), 0);
        prop_assert_eq!(
            (seen.ended, seen.interesting, seen.raw),
            expected,
            "{:?}",
            String::from_utf8_lossy(&stream)
        );
        let ended_at = scanned.0.iter().rev().find_map(|seen| match seen {
            Seen::End(at) => Some(*at),
            Seen::Head(_) => None,
        });
        prop_assert_eq!(seen.at_start, !scanned.1 && ended_at == Some(stream.len()));
        Ok(())
    });
}

#[test]
fn the_kernel_reads_lines_without_a_colon_as_they_are_read_here() {
    let kernel = Kernel::new();
    for line in ["abc", "0", "3\r\nabc\r\n0\r\n3\r\nabc", "Host: a\r\nab", "abcdefghijkl"] {
        let stream = format!("POST /a HTTP/1.1\r\n{line}\r\n");
        let (scanned, _) = scan_requests(stream.as_bytes(), &NoNeedles, BLOCKS[0]);
        assert_eq!(kernel.run(Rehearsal::REQUESTS, stream.as_bytes()).raw, scanned.1, "{stream:?}");
    }
}

#[test]
fn the_kernel_reads_responses_as_they_are_read_here() {
    let kernel = Kernel::new();
    check(3000, (any_stream(any_response()), any::<bool>()), |(stream, head)| {
        let (mode, method) = if head {
            (Rehearsal::RESPONSES_TO_HEAD, MethodKind::Head)
        } else {
            (Rehearsal::RESPONSES, MethodKind::Other)
        };
        let scanned = scan_responses(&stream, &[method], BLOCKS[0]);
        let seen = kernel.run(mode, &stream);
        prop_assert!(seen.finished);
        let expected = expected(&scanned, |seen| matches!(seen, Seen::End(_)), 0);
        prop_assert_eq!(
            (seen.ended, seen.interesting, seen.raw),
            expected,
            "{:?}",
            String::from_utf8_lossy(&stream)
        );
        Ok(())
    });
}

#[test]
fn no_request_of_an_intercept_is_missed_in_the_kernel() {
    let mut kernel = Kernel::new();
    let requests = prop::collection::vec(request_with_context(), 1..4);
    check(3000, (any_matcher(), requests), |(matcher, requests)| {
        let mut stream = requests.concat();
        stream.truncate(LONGEST);
        let wanted = Wanted::of(&matcher);
        kernel.look_for(&wanted);
        let seen = kernel.run(Rehearsal::REQUESTS, &stream);
        let (_, interesting) = scan_requests(&stream, &wanted, BLOCKS[0]);
        let interesting = interesting.iter().filter(|&&interesting| interesting).count();
        prop_assert_eq!(usize::from(seen.interesting), interesting);
        let matches = matches_of(&stream, &matcher).iter().filter(|&&matches| matches).count();
        prop_assert!(usize::from(seen.interesting) >= matches && seen.finished && !seen.raw);
        Ok(())
    });
}

/// Not a test of anything: what reading costs. `cargo test --release --test scan_in_kernel -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn what_reading_costs() {
    let kernel = Kernel::new();
    let program: &SchedClassifier = kernel.object.program("redirector_rehearse").unwrap().try_into().unwrap();
    let request = "GET /index.html?a=b HTTP/1.1\r\nHost: 10.78.0.2:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.5\r\nCache-Control: no-cache\r\nX-Request-Id: 0123456789abcdef0123456789abcdef\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 09:55:14 GMT\r\nContent-Type: text/html\r\nContent-Length: 600\r\nLast-Modified: Tue, 24 Nov 2026 09:46:14 GMT\r\nConnection: keep-alive\r\nETag: \"6924-258\"\r\nAccept-Ranges: bytes\r\n\r\n";
    let minimal = "GET / HTTP/1.1\r\n\r\n";
    let lines = format!("GET / HTTP/1.1\r\n{}\r\n", "Host: abcdefgh\r\n".repeat(10));
    let long = format!(
        "GET / HTTP/1.1\r\n{}\r\n",
        "Host: abcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabcdefghabc\r\n".repeat(10)
    );
    for (mode, payload) in [
        (9, ""),
        (Rehearsal::REQUESTS, minimal),
        (Rehearsal::REQUESTS, &lines),
        (Rehearsal::REQUESTS, &long),
        (Rehearsal::REQUESTS, request),
        (Rehearsal::RESPONSES, "HTTP/1.1 200 OK\r\n\r\n"),
        (Rehearsal::RESPONSES, response),
    ] {
        let mut packet = vec![mode];
        packet.resize(14, 0);
        packet.extend(payload.bytes());
        for _ in 0..5 {
            let options =
                TestRunOptions { data_in: Some(&packet), repeat: 1_000_000, ..TestRunOptions::default() };
            let result = program.test_run(options).unwrap();
            println!("{} bytes: {:?}", payload.len(), result.duration);
        }
    }
}
