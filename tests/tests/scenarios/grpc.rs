//! gRPC by its own library on both ends: nobody notices the agent, and context is metadata.

use lab::{Agent, App, Developer, Lab, eventually, grpc_client};
use serde_json::{Value, json};

use crate::http2::{port_counts, uncovered};
use crate::scene::{DIRECT, LOCAL, PORT, Route, for_alice, in_lab};

/// How much more memory the agent may need for any amount of streaming, also to a reader that pauses. Bytes.
const MORE_MEMORY: u64 = 48 << 20;

const GIB: u64 = 1 << 30;

/// gRPC servers in the pod and on alice's machine, the agent, and alice's intercept.
/// (Fields are dropped in this order.)
struct GrpcScene<'a> {
    alice: Developer,
    agent: Agent,
    alice_app: App,
    app: App,
    lab: &'a Lab,
}

impl<'a> GrpcScene<'a> {
    fn new(lab: &'a Lab) -> Self {
        let app = App::grpc(lab, &lab.pod, "app", &[PORT, DIRECT]);
        let alice_app = App::grpc(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let alice = for_alice(lab, &agent).start(lab);
        Self { alice, agent, alice_app, app, lab }
    }

    #[track_caller]
    fn client(&self, route: Route, action: &[&str]) -> Value {
        let metadata = metadata(route);
        let arguments = [&[&*metadata], action].concat();
        grpc_client(self.lab, &self.lab.client, &self.lab.pod.at(PORT).to_string(), &arguments)
    }

    /// The same with nothing on the way.
    #[track_caller]
    fn direct(&self, route: Route, action: &[&str]) -> Value {
        let metadata = metadata(route);
        let arguments = [&[&*metadata], action].concat();
        match route {
            Route::Live => {
                grpc_client(self.lab, &self.lab.client, &self.lab.pod.at(DIRECT).to_string(), &arguments)
            }
            Route::Alice => grpc_client(self.lab, &self.lab.dev, &format!("127.0.0.1:{LOCAL}"), &arguments),
        }
    }

    /// Asserts that no connection was passed on unseen.
    #[track_caller]
    fn assert_all_routed(&self) {
        assert_eq!(uncovered(&self.agent), 0);
    }
}

fn metadata(route: Route) -> String {
    route.header().replace(": ", "=")
}

#[test]
fn all_kinds_of_calls_work_on_both_routes() {
    in_lab(|lab| {
        let scene = GrpcScene::new(lab);
        for (route, server) in [(Route::Live, &scene.app), (Route::Alice, &scene.alice_app)] {
            let said = scene.client(route, &["dialog"]);
            assert_eq!(
                said["unary"]["initial"],
                json!({ "served-by": route.server(), "seen-bin": "00fe2c" })
            );
            assert_eq!(said["status"]["reason"], format!("asked of {}", route.server()));
            assert_eq!(
                (&said["deadline"], &said["cancelled"]),
                (&"DEADLINE_EXCEEDED".into(), &"CANCELLED".into())
            );
            for over in ["call over: deadline", "call over: cancelled"] {
                eventually(&format!("{route:?}: the server says {over:?}"), || server.log().contains(over));
            }
            assert!(server.log().contains("deadline some"), "the server knows of the deadline");
            assert_eq!(said, scene.direct(route, &["dialog"]), "{route:?}");
        }
        scene.assert_all_routed();
    });
}

#[test]
fn a_server_that_speaks_first_is_taken_up() {
    in_lab(|lab| {
        let scene = GrpcScene::new(lab);
        let mut silent = lab.client.connect(lab.pod.at(DIRECT));
        assert_eq!(silent.exactly(9)[3..], [4, 0, 0, 0, 0, 0], "it does: SETTINGS on stream 0");
        // That the client has got its answer proves nothing; that alice has given it does.
        let calls = scene.client(Route::Alice, &["calls", "20"]);
        assert_eq!(calls, json!({ "errors": [], "served": { "alice": 20 } }));
        scene.assert_all_routed();
    });
}

#[test]
fn ten_thousand_calls_that_do_not_match_see_no_error() {
    in_lab(|lab| {
        let scene = GrpcScene::new(lab);
        let calls = scene.client(Route::Live, &["calls", "10000"]);
        assert_eq!(calls, json!({ "errors": [], "served": { "app": 10000 } }));
        let counts = &port_counts(&scene.agent)["requests"]["h2"];
        assert_eq!((counts["seen"].as_u64(), counts["live"].as_u64()), (Some(10000), Some(10000)));
    });
}

#[test]
fn calls_of_the_developer_come_and_go_among_others() {
    in_lab(|lab| {
        let scene = GrpcScene::new(lab);
        std::thread::scope(|scope| {
            let live = scope.spawn(|| scene.client(Route::Live, &["calls", "3000"]));
            let alice = scene.client(Route::Alice, &["calls", "1000"]);
            assert_eq!(alice, json!({ "errors": [], "served": { "alice": 1000 } }));
            assert_eq!(live.join().unwrap(), json!({ "errors": [], "served": { "app": 3000 } }));
        });
        let screen =
            || scene.alice.lines().iter().filter(|line| line.contains("POST /lab.Lab/Unary 200")).count();
        eventually("each of her calls is on her screen", || screen() == 1000);
    });
}

#[test]
fn a_gibibyte_each_way_needs_no_memory() {
    in_lab(|lab| {
        let scene = GrpcScene::new(lab);
        // Whatever is needed once is there.
        scene.client(Route::Live, &["down", "8"]);
        let before = scene.agent.reset_peak_memory();
        for direction in ["up", "down"] {
            let said = scene.client(Route::Live, &[direction, "1024"]);
            assert_eq!(
                (said["size"].as_u64(), &said["code"]),
                (Some(GIB), &"OK".into()),
                "{direction}: {said}"
            );
        }
        let more = scene.agent.peak_memory().saturating_sub(before);
        assert!(more < MORE_MEMORY, "{more} bytes more than before");
        assert_eq!(port_counts(&scene.agent)["requests"]["h2"]["live"], 3, "through the agent");
    });
}

#[test]
fn a_call_to_a_local_server_that_is_not_there_is_unavailable() {
    in_lab(|lab| {
        let GrpcScene { alice: _alice, agent: _agent, alice_app, app: _app, lab } = GrpcScene::new(lab);
        drop(alice_app);
        let address = lab.pod.at(PORT).to_string();
        let calls = grpc_client(lab, &lab.client, &address, &[&metadata(Route::Alice), "calls", "1"]);
        let error = calls["errors"][0].as_str().unwrap();
        assert!(error.contains("StatusCode.UNAVAILABLE") && error.contains("nothing listens on"), "{error}");
    });
}
