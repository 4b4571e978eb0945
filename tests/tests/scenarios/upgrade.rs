//! Connections that stop being HTTP: WebSocket, other upgrades, CONNECT.

use std::{io::Write as _, net::TcpStream, thread, time::Duration};

use lab::{Agent, App, Connection, Peer, Server, WebSockets, websocket_dialog};

use crate::scene::{
    LOCAL, PORT, Route, assert_routing, for_alice, in_lab, intercepted_by_each_datapath, text,
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: echo\r\n";

#[test]
fn websockets_of_python_and_node_work_on_both_routes() {
    WebSockets::BOTH.into_iter().for_each(websockets_work_on_both_routes);
}

#[track_caller]
fn websockets_work_on_both_routes(by: WebSockets) {
    in_lab(|lab| {
        let _app = App::websocket(lab, &lab.pod, by, "app", &[PORT]);
        let _alice_app = App::websocket(lab, &lab.dev, by, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let url = format!("ws://{}/socket", lab.pod.at(PORT));
        for route in Route::BOTH {
            let dialog = websocket_dialog(lab, &lab.client, by, &url, &[route.header()]).json();
            for number in 0..20 {
                assert_eq!(dialog["texts"][number], format!("{}: message {number}", route.server()));
            }
            assert_eq!(
                (dialog["large_same"].as_bool(), dialog["close_code"].as_u64()),
                (Some(true), Some(1000))
            );
        }
    });
}

#[test]
fn an_upgraded_connection_may_close_one_direction() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let switched = upgrade(connection, route, "");
            connection.send(b"\0\x01 any bytes \xff");
            connection.finish_sending();
            let rest = connection.rest();
            assert!(rest.ends_with(format!("bye {}\n", route.server()).as_bytes()), "{rest:?}");
            (switched, rest)
        });
        scene.assert_routing();
    });
}

#[test]
fn bytes_sent_along_with_the_upgrade_arrive() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let switched = upgrade(connection, route, "eager");
            connection.finish_sending();
            let rest = connection.rest();
            assert_eq!(rest, format!("eagerbye {}\n", route.server()).as_bytes());
            (switched, rest)
        });
    });
}

#[test]
fn requests_inside_an_upgraded_connection_are_not_routed() {
    intercepted_by_each_datapath(|scene| {
        for (route, other) in [(Route::Live, Route::Alice), (Route::Alice, Route::Live)] {
            let mut connection = scene.connect();
            upgrade(&mut connection, route, "");
            let inner = other.get("/inner");
            connection.send(&inner);
            assert_eq!(connection.exactly(inner.len()), inner, "{route:?}");
            connection.finish_sending();
            assert_eq!(connection.rest(), format!("bye {}\n", route.server()).as_bytes());
        }
    });
}

#[test]
fn a_refused_upgrade_leaves_an_ordinary_connection() {
    intercepted_by_each_datapath(|scene| {
        let fields = "Connection: Upgrade\r\nUpgrade: something-else\r\n";
        let mut connection = scene.connect();
        for route in [Route::Live, Route::Alice, Route::Alice, Route::Live] {
            let answer = connection.ask(route.request("GET", "/", fields, ""));
            assert_eq!((answer.status, text(&answer.json(), "served_by").as_str()), (200, route.server()));
        }
    });
}

#[test]
fn large_amounts_flow_both_ways_at_once_after_an_upgrade() {
    intercepted_by_each_datapath(|scene| {
        for route in Route::BOTH {
            const PIECES: usize = 512;
            let mut connection = scene.connect();
            upgrade(&mut connection, route, "");
            let piece = |number: usize| vec![(number % 251) as u8; 32 * 1024];
            let mut sending = connection.stream().try_clone().unwrap();
            let sender =
                thread::spawn(move || (0..PIECES).try_for_each(|number| sending.write_all(&piece(number))));
            for number in 0..PIECES {
                assert!(connection.exactly(32 * 1024) == piece(number), "{route:?}: piece {number} differs");
            }
            sender.join().unwrap().unwrap();
            connection.finish_sending();
            assert_eq!(connection.rest(), format!("bye {}\n", route.server()).as_bytes());
        }
    });
}

#[test]
fn after_connect_the_bytes_belong_to_the_app() {
    in_lab(|lab| {
        let app = Server::start(&lab.pod.netns, lab.pod.at(PORT), |mut stream: &TcpStream, peer: &Peer| {
            while !peer.received().ends_with(b"\r\n\r\n") && !peer.ended() {
                thread::sleep(Duration::from_millis(5));
            }
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            while !peer.ended() {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);

        let mut connection = lab.client.connect(lab.pod.at(PORT));
        let connect = "CONNECT other.test:80 HTTP/1.1\r\nHost: other.test:80\r\n\r\n".as_bytes();
        assert_eq!(connection.ask(connect).status, 200);
        let inner = Route::Alice.get("/inner");
        connection.send(&inner);
        let all = [connect, &inner].concat();
        assert_eq!(app.peer(0).wait_for(all.len()), all);

        let mut routed = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(text(&routed.ask(Route::Alice.get("/")).json(), "served_by"), "alice", "the agent routes");
    });
}

#[test]
fn routing_goes_on_for_others_while_a_websocket_is_open() {
    intercepted_by_each_datapath(|scene| {
        let mut open = scene.connect();
        upgrade(&mut open, Route::Alice, "");
        assert_routing(scene.lab);
        open.send("still there");
        assert_eq!(open.exactly(11), b"still there");
    });
}

/// Switches the connection to the echo protocol; gives the answer.
#[track_caller]
fn upgrade(connection: &mut Connection, route: Route, with: &str) -> String {
    let answer = connection.ask(route.request("GET", "/", UPGRADE, with));
    assert_eq!(answer.status, 101);
    answer.text()
}
