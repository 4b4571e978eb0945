//! A simulated cluster tells its own truth: which request came of which, and who dropped what.

use super::{
    contexts::Contexts,
    mark::Mark,
    observation::{MAX_MET, Observation, Taken, method_of, path_of, trace_ids},
    query::{TraceQuery, Window},
    text::text,
    traceparent::{TraceId, TraceIds},
    tree::{Addresses, Cause, Dropped, Sighting, Tree, grow},
};
use crate::{
    context::{Condition, Matcher},
    http1::RequestView,
    protocol::Protocol,
};
use httparse::Header;
use jiff::Timestamp;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

const KEY: &str = "abcdefghijklmnop";

/// Microseconds from some moment on.
fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(1_800_000_000_000_000 + micros).unwrap()
}

fn address(hop: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, hop as u8 + 1).into()
}

fn trace(number: u8) -> TraceId {
    TraceIds::from_bytes([number; 24]).trace
}

fn key() -> Mark {
    Mark::of_key(&KEY.parse().unwrap())
}

/// Some observation.
pub(crate) fn observation() -> Observation {
    sighting(0, None, (0, 1), true, Some(1)).seen
}

/// A request from `from` (a hop, or outside) to `hop`, from `start` to `end` in milliseconds.
fn sighting(hop: usize, from: Option<usize>, times: (i64, i64), context: bool, id: Option<u8>) -> Sighting {
    let client = from.map_or(Ipv4Addr::new(192, 0, 2, 1).into(), address);
    let mut headers = BTreeSet::new();
    if context {
        headers.insert("baggage".to_owned());
    }
    if id.is_some() {
        headers.insert("traceparent".to_owned());
    }
    let seen = Observation {
        hop: format!("netns:hop{hop}"),
        port: 8080,
        client: SocketAddr::new(client, 40_000),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        protocol: Protocol::Http1,
        trace: id.map(trace),
        parent: None,
        span: None,
        headers,
        carried: if context { [key()].into() } else { BTreeSet::new() },
        sought: BTreeSet::new().into(),
        met: Vec::new(),
        preview: None,
        route: Taken::App,
        status: Some(200),
        started: at(times.0 * 1000),
        micros: (times.1 - times.0) as u64 * 1000,
    };
    Sighting { source: 0, seen }
}

fn addresses(hops: usize) -> Addresses {
    (0..hops).map(|hop| ((0, format!("netns:hop{hop}")), [address(hop)].into())).collect()
}

#[test]
fn three_hops_are_a_path_and_the_one_that_dropped_the_context_is_named() {
    let path = vec![
        sighting(0, None, (0, 1000), true, Some(1)),
        sighting(1, Some(0), (100, 900), true, Some(1)),
        sighting(2, Some(1), (200, 800), false, Some(1)),
    ];
    let trees = grow(path, &addresses(3));
    assert_eq!(trees.len(), 1);
    let last = &trees[0].children[0].children[0];
    assert_eq!((last.dropped, last.cause), (Some(Dropped::Certainly), Some(Cause::AddressAndTrace)));
    let text = text(&trees[0]);
    assert!(text.contains("✗ netns:hop1 dropped the context: it did not pass on baggage\n"), "{text}");
    assert!(!text.contains("netns:hop0 dropped") && !text.contains("No developer was reached"), "{text}");
}

#[test]
fn without_a_trace_id_the_address_tells_and_other_requests_make_it_doubtful() {
    let mut path =
        vec![sighting(0, None, (0, 1000), true, None), sighting(1, Some(0), (100, 900), false, None)];
    let trees = grow(path.clone(), &addresses(2));
    assert_eq!(trees[0].children[0].dropped, Some(Dropped::Probably));
    assert!(text(&trees[0]).contains("✗ netns:hop0 probably dropped the context"));

    path.push(sighting(0, None, (50, 950), false, None));
    let trees = grow(path, &addresses(2));
    assert_eq!(trees[0].children[0].dropped, Some(Dropped::Perhaps { others: 1 }));
    assert!(text(&trees[0]).contains("? netns:hop0 may have dropped the context"));
}

#[test]
fn a_hop_that_passed_the_context_on_is_not_blamed_for_live_requests_beside_it() {
    let path = vec![
        sighting(0, None, (0, 1000), true, None),
        sighting(0, None, (0, 1000), false, None),
        sighting(1, Some(0), (100, 900), true, None),
        sighting(1, Some(0), (110, 900), false, None),
    ];
    let trees = grow(path, &addresses(2));
    assert_eq!(trees.len(), 1);
    assert!(trees[0].children.len() == 1 && !trees[0].drops());
}

#[test]
fn what_was_not_looked_for_was_not_dropped() {
    let dev = Mark::of_condition(&Condition::Header("x-dev=alice".parse().unwrap())).unwrap();
    let mut first = sighting(0, None, (0, 1000), false, Some(1));
    first.seen.carried = [dev.clone()].into();
    let mut second = sighting(1, Some(0), (100, 900), false, Some(1));
    let child = |second: &Sighting| {
        let trees = grow(vec![first.clone(), second.clone()], &addresses(2));
        trees[0].children[0].dropped
    };
    assert_eq!(child(&second), None);
    second.seen.sought = BTreeSet::from([dev]).into();
    assert_eq!(child(&second), Some(Dropped::Certainly));
}

#[test]
fn hops_that_are_not_observed_are_bridged_by_the_trace_id() {
    let mut gateway = sighting(0, None, (0, 1000), true, Some(1));
    gateway.seen.hop = "gateway".to_owned();
    let behind_an_ingress = sighting(1, Some(7), (100, 900), true, Some(1));
    let trees = grow(vec![gateway, behind_an_ingress], &addresses(2));
    assert_eq!((trees.len(), trees[0].children[0].cause), (1, Some(Cause::Trace)));
}

#[test]
fn requests_that_follow_each_other_closely_are_put_in_their_order() {
    // A few milliseconds apart, on one clock; and the gateway's clock is late.
    let mut gateway = sighting(3, None, (4, 20), true, Some(1));
    gateway.seen.route = Taken::Ingress;
    gateway.source = 1;
    let path = vec![
        gateway,
        sighting(0, None, (1, 12), true, Some(1)),
        sighting(1, Some(0), (2, 11), true, Some(1)),
        sighting(2, Some(1), (3, 10), false, Some(1)),
    ];
    let trees = grow(path, &addresses(3));
    assert_eq!((trees.len(), trees[0].seen.route.clone()), (1, Taken::Ingress));
    let last = &trees[0].children[0].children[0].children[0];
    assert_eq!((&*last.seen.hop, last.dropped), ("netns:hop2", Some(Dropped::Certainly)));
}

#[test]
fn headers_that_got_lost_along_with_others_that_did_not_are_told() {
    let mut first = sighting(0, None, (0, 1000), true, Some(1));
    first.seen.headers.insert("tracestate".to_owned());
    let second = sighting(1, Some(0), (100, 900), true, Some(1));
    let trees = grow(vec![first, second], &addresses(2));
    assert!(text(&trees[0]).contains("! netns:hop0 did not pass on tracestate\n"));
}

#[test]
fn only_names_and_hashes_of_a_request_are_remembered() {
    let lines =
        [("baggage", "redirector=abcdefghijklmnop, user=s3cret"), ("X-Dev", "alice"), ("accept", "*/*")];
    let headers: Vec<Header<'_>> =
        lines.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let request = RequestView::new("GET", "/cart?token=s3cret", &headers);
    let alice = Matcher { conditions: vec![Condition::Header("x-dev=alice".parse().unwrap())] };
    let bob = Matcher { conditions: vec![Condition::Header("x-dev=bob".parse().unwrap())] };
    let contexts = Contexts::of([&alice, &bob]);
    let carried = contexts.carried_by(&request);
    assert!(carried.len() == 2 && contexts.sought().len() == 2 && carried.contains(&key()));
    let names = contexts.headers_of(&request);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["baggage", "x-dev"]);
    assert_eq!((path_of(request.target), trace_ids(&request)), ("/cart".to_owned(), None));
    let text = format!("{carried:?}");
    assert!(!text.contains(KEY) && !text.contains("alice") && !text.contains("s3cret"), "{text}");
}

#[test]
fn of_a_target_the_path_is_remembered_and_nothing_else() {
    for (target, path) in [
        ("/a/b?token=s3cret", "/a/b"),
        ("http://alice:s3cret@shop.test:8080/a%2fb?token=s3cret", "/a%2fb"),
        ("http://alice:s3cret@shop.test?token=s3cret", "/"),
        ("alice:s3cret@shop.test:443", ""),
        ("*", ""),
    ] {
        assert_eq!(path_of(target), path, "{target}");
    }
}

#[test]
fn a_question_finds_what_it_asks_for() {
    let mut seen = sighting(0, None, (0, 10), true, Some(1)).seen;
    seen.met = vec!["alice".to_owned()];
    let finds = |query: TraceQuery| query.select(vec![Arc::new(seen.clone())]).len() == 1;
    assert!(finds(TraceQuery { name: Some("alice".to_owned()), ..TraceQuery::default() }));
    assert!(finds(TraceQuery { marks: vec![key()], ..TraceQuery::default() }));
    assert!(finds(TraceQuery { traces: vec![trace(1)], ..TraceQuery::default() }));
    let window = |from, to| TraceQuery {
        windows: vec![Window { from: at(from), to: at(to) }],
        ..TraceQuery::default()
    };
    assert!(finds(window(9_000, 20_000)) && !finds(window(11_000, 20_000)) && !finds(window(-5, -1)));
    assert!(
        !finds(TraceQuery::default())
            && !finds(TraceQuery { traces: vec![trace(2)], ..TraceQuery::default() })
    );
}

#[test]
fn a_request_that_is_a_developers_by_its_path_is_shown() {
    let mut by_path = sighting(0, None, (0, 10), false, None);
    by_path.seen.met = vec!["alice".to_owned()];
    let query = TraceQuery { name: Some("alice".to_owned()), ..TraceQuery::default() };
    for route in [Taken::Developer("alice".to_owned()), Taken::Away("alice".to_owned())] {
        by_path.seen.route = route;
        assert_eq!(query.select(vec![Arc::new(by_path.seen.clone())]).len(), 1);
        let trees = grow(vec![by_path.clone()], &addresses(1));
        assert_eq!(trees.len(), 1);
        assert!(text(&trees[0]).contains("no context\n"), "{}", text(&trees[0]));
    }
    by_path.seen.route = Taken::App;
    assert!(grow(vec![by_path], &addresses(1)).is_empty());
}

#[test]
fn requests_with_a_context_leave_room_for_those_that_lost_it() {
    let bare = sighting(0, None, (0, 1), false, Some(1)).seen;
    let carrying = (1..=2001).map(|at| sighting(0, None, (at, at + 1), true, Some(1)).seen);
    let all = carrying.chain([bare.clone()]).map(Arc::new).collect();
    let found = TraceQuery { traces: vec![trace(1)], ..TraceQuery::default() }.select(all);
    assert_eq!(found.len(), 2001);
    assert!(
        found.contains(&bare) && !found.iter().any(|seen| seen.started == at(1000)),
        "the oldest is left out"
    );
}

/// One request of the simulation: where it goes, and what comes of it.
#[derive(Clone, Debug)]
struct Call {
    hop: usize,
    /// The hop drops the context of what it asks.
    drops: bool,
    calls: Vec<Call>,
}

fn call() -> impl Strategy<Value = Call> {
    let leaf = (0..5usize).prop_map(|hop| Call { hop, drops: false, calls: Vec::new() });
    leaf.prop_recursive(4, 12, 3, |inner| {
        (0..5usize, any::<bool>(), prop::collection::vec(inner, 0..3)).prop_map(|(hop, drops, calls)| Call {
            hop,
            drops,
            calls,
        })
    })
}

/// What the hops see of a call from `from` within `times`; and for each, who it came of and whether the context was lost.
fn play(
    call: &Call,
    from: Option<(usize, usize)>,
    times: (i64, i64),
    context: bool,
    id: u8,
    seen: &mut Vec<(Sighting, Option<usize>, bool)>,
) {
    let own = seen.len();
    let lost = from.is_some_and(|(parent, _)| seen[parent].0.seen.carries() && !context);
    let sighting = sighting(call.hop, from.map(|(_, hop)| hop), times, context, Some(id));
    seen.push((sighting, from.map(|(parent, _)| parent), lost));
    // One after the other, further apart than clocks are.
    let slot = (times.1 - times.0) / (call.calls.len() as i64 + 1);
    for (number, inner) in call.calls.iter().enumerate() {
        let start = times.0 + number as i64 * slot + slot / 4;
        let times = (start, start + slot / 2);
        play(inner, Some((own, call.hop)), times, context && !call.drops, id, seen);
    }
}

fn parents(trees: &[Tree], of: Option<i64>, found: &mut BTreeMap<i64, (Option<i64>, bool)>) {
    for tree in trees {
        let own = tree.seen.started.as_microsecond();
        assert!(found.insert(own, (of, tree.dropped.is_some())).is_none(), "a request is in one place only");
        parents(&tree.children, Some(own), found);
    }
}

/// A head with whatever makes it large: keys, names, a long method and path.
fn hostile() -> impl Strategy<Value = (String, String, Vec<(String, String)>)> {
    let keys = |place: &'static str| {
        prop::collection::vec("[a-z0-9]{16,64}", 0..60).prop_map(move |keys| {
            keys.iter().map(|key| format!("{place}redirector={key}")).collect::<Vec<_>>()
        })
    };
    let lines = (keys(""), keys(" "), prop::collection::vec("[a-z0-9]{16,64}", 0..40));
    let headers = lines.prop_map(|(baggage, tracestate, own)| {
        let mut headers: Vec<(String, String)> = vec![("baggage".to_owned(), baggage.join(","))];
        headers.push(("tracestate".to_owned(), tracestate.join(",")));
        headers.extend(own.into_iter().map(|key| ("x-redirector-intercept".to_owned(), key)));
        headers.extend((0..300).map(|number| (format!("x-{number}-{}", "n".repeat(200)), "v".to_owned())));
        headers
    });
    ("[A-Z]{1,4000}", "/[a-zä]{0,4000}", headers)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn an_observation_is_small_whatever_was_sent((method, path, lines) in hostile()) {
        let headers: Vec<Header<'_>> =
            lines.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let request = RequestView::new(&method, &path, &headers);
        // As many as a port may have look for each of these headers.
        let matchers: Vec<Matcher> = (0..300)
            .map(|number| format!("x-{number}-{}=v", "n".repeat(200)).parse().unwrap())
            .map(|header| Matcher { conditions: vec![Condition::Header(header)] })
            .collect();
        let contexts = Contexts::of(&matchers);
        let mut seen = sighting(0, None, (0, 1), false, None).seen;
        (seen.method, seen.path) = (method_of(&method), path_of(&path));
        (seen.headers, seen.carried) = (contexts.headers_of(&request), contexts.carried_by(&request));
        // Intercepts have names of 64 bytes at most.
        seen.met = vec!["n".repeat(64); MAX_MET];
        // It is shared by all.
        seen.sought = contexts.sought();
        prop_assert!(seen.sought.len() <= 128);
        seen.sought = BTreeSet::new().into();
        let text = serde_json::to_string(&seen).unwrap();
        prop_assert!(text.len() < 2048, "{} bytes: {text}", text.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn paths_are_those_that_requests_took_as_long_as_trace_ids_are_passed_on(calls in prop::collection::vec(call(), 1..4)) {
        let mut seen = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            // All at the same time, a little apart so that each has a time of its own.
            let start = number as i64;
            play(call, None, (start, 4_000_000 + start), true, number as u8 + 1, &mut seen);
        }
        // Of two that began at once nothing could be told apart here.
        let times: BTreeSet<i64> = seen.iter().map(|(one, ..)| one.seen.started.as_microsecond()).collect();
        prop_assume!(times.len() == seen.len());
        let trees = grow(seen.iter().map(|(one, ..)| one.clone()).collect(), &addresses(5));
        let mut found = BTreeMap::new();
        parents(&trees, None, &mut found);
        prop_assert_eq!(found.len(), seen.len());
        for (one, parent, lost) in &seen {
            let time = |at: &usize| seen[*at].0.seen.started.as_microsecond();
            let truth = (parent.as_ref().map(time), *lost);
            prop_assert_eq!(found[&one.seen.started.as_microsecond()], truth, "{}", one.seen.hop);
        }
    }

    #[test]
    fn whatever_was_seen_each_request_is_in_one_place_at_most_and_text_can_be_made(
        all in prop::collection::vec((0..4usize, prop::option::of(0..4usize), 0..60i64, 0..60i64, any::<bool>(), prop::option::of(0..3u8)), 0..24),
    ) {
        let sightings: Vec<Sighting> = all
            .iter()
            .enumerate()
            .map(|(number, (hop, from, start, len, context, id))| {
                let mut one = sighting(*hop, *from, (*start, start + len), *context, *id);
                one.seen.path = format!("/{number}");
                one
            })
            .collect();
        let carrying = sightings.iter().filter(|one| one.seen.carries()).count();
        let trees = grow(sightings, &addresses(4));
        let mut paths = Vec::new();
        fn walk(tree: &Tree, paths: &mut Vec<(String, bool)>) {
            paths.push((tree.seen.path.clone(), tree.seen.carries()));
            tree.children.iter().for_each(|child| walk(child, paths));
        }
        for tree in &trees {
            walk(tree, &mut paths);
            prop_assert!(text(tree).lines().count() >= 4);
        }
        let distinct: BTreeSet<&String> = paths.iter().map(|(path, _)| path).collect();
        prop_assert_eq!(distinct.len(), paths.len());
        prop_assert_eq!(paths.iter().filter(|(_, carries)| *carries).count(), carrying, "none that carried it is left out");
    }
}
