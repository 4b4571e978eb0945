//! Where one message ends and the next begins: as the server at the end of the route has it, to the byte.

use std::iter;

use lab::Response;

use crate::scene::{PORT, Route, in_lab, intercepted_by, intercepted_by_each_datapath, served_by, text};

#[test]
fn chunked_answers_with_trailers_come_unchanged() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            [connection.ask(route.get("/chunked?parts=50")).text(), connection.ask(route.get("/")).text()]
        });
        scene.assert_routing();
    });
}

#[test]
fn chunked_requests_with_trailers_arrive_whole() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n";
            let body =
                "5;a=\"b\"\r\nhello\r\n1\r\n \r\n0005\r\nworld\r\n0\r\nX-Sum: 11\r\nX-Dev: alice\r\n\r\n";
            let answer = connection.ask(route.request("POST", "/", fields, body));
            let report = answer.json();
            assert_eq!(report["body_length"], 11);
            assert_eq!(report["trailers"][0], "X-Sum: 11");
            assert_eq!(text(&report, "served_by"), route.server(), "a trailer is no context");
            [answer.text(), connection.ask(route.get("/next")).text()]
        });
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_from_the_server() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let fields = "Expect: 100-continue\r\nContent-Length: 5\r\n";
            let interim = connection.ask(route.request("PUT", "/", fields, ""));
            assert_eq!(interim.status, 100);
            let answer = connection.ask("hello");
            assert_eq!(text(&answer.json(), "served_by"), route.server());
            [interim.text(), answer.text(), connection.ask(route.get("/next")).text()]
        });
    });
}

#[test]
fn a_server_that_refuses_an_expectation_is_heard() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let fields = "Expect: 100-continue\r\nContent-Length: 5\r\n";
            let refusal = connection.ask(route.request("PUT", "/refuse", fields, ""));
            assert_eq!(refusal.status, 417);
            (refusal.text(), connection.rest_text())
        });
        scene.assert_routing();
    });
}

#[test]
fn interim_answers_are_not_taken_for_the_answer() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let hints = connection.ask(route.get("/interim"));
            assert_eq!(hints.status, 103);
            let answer = connection.response("GET");
            assert_eq!(text(&answer.json(), "served_by"), route.server());
            [hints.text(), answer.text(), connection.ask(route.get("/next")).text()]
        });
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_comes_at_once() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let early = connection.ask(route.request("POST", "/early", "Content-Length: 10\r\n", "hello"));
            connection.send("world");
            let next = connection.ask(route.get("/"));
            assert_eq!(text(&next.json(), "served_by"), route.server());
            [early.text(), next.text()]
        });
    });
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let mut answers = Vec::new();
            for (method, path) in
                [("HEAD", "/"), ("GET", "/status/204"), ("GET", "/status/304"), ("HEAD", "/status/404")]
            {
                answers.push(connection.ask(route.request(method, path, "", "")).text());
                let next = connection.ask(route.get("/"));
                assert_eq!(text(&next.json(), "served_by"), route.server(), "after {method} {path}");
                answers.push(next.text());
            }
            answers
        });
    });
}

#[test]
fn http_1_0_is_answered_as_the_server_answers_it() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let request = format!("GET / HTTP/1.0\r\n{}\r\nConnection: close\r\n\r\n", route.header());
            connection.send(request);
            connection.rest_text()
        });
        scene.assert_routing();
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    // In place they are the app's: requests that overtake an answer are left where they are.
    intercepted_by("proxy", |scene| {
        scene.same_as_direct(|connection, route| {
            let requests = (0..20).flat_map(|number| {
                let body = "x".repeat(number);
                route.request("POST", &format!("/{number}"), &format!("Content-Length: {number}\r\n"), &body)
            });
            connection.send(requests.collect::<Vec<_>>());
            let answers: Vec<_> = iter::repeat_with(|| connection.response("POST")).take(20).collect();
            for (number, answer) in answers.iter().enumerate() {
                assert_eq!(text(&answer.json(), "target"), format!("/{number}"));
            }
            answers.iter().map(Response::text).collect::<Vec<_>>()
        });
        scene.assert_routing();
    });
}

#[test]
fn pipelined_requests_of_different_routes_are_answered_in_order() {
    intercepted_by_each_datapath(|scene| {
        // The slow answers of one route must hold up the fast ones of the other.
        for slow in Route::BOTH {
            let mut connection = scene.connect();
            let routes: Vec<Route> = Route::BOTH.into_iter().cycle().take(8).collect();
            let requests = routes.iter().enumerate().flat_map(|(number, route)| {
                let path = if *route == slow { "/slow?ms=100" } else { "/fast" };
                route.request("POST", path, "Content-Length: 1\r\n", &number.to_string())
            });
            connection.send(requests.collect::<Vec<_>>());
            for route in routes {
                assert_eq!(served_by(&connection.response("POST")), route.server(), "slow: {slow:?}");
            }
        }
    });
}

#[test]
fn a_body_that_looks_like_a_request_is_a_body() {
    intercepted_by_each_datapath(|scene| {
        for (route, other) in [(Route::Live, Route::Alice), (Route::Alice, Route::Live)] {
            let inner = String::from_utf8(other.get("/inner")).unwrap();
            let mut connection = scene.connect();
            let length = format!("Content-Length: {}\r\n", inner.len());
            let plain = connection.ask(route.request("POST", "/outer", &length, &inner)).json();
            let chunks = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
            let chunked = connection
                .ask(route.request("POST", "/outer", "Transfer-Encoding: chunked\r\n", &chunks))
                .json();
            for report in [plain, chunked] {
                assert_eq!(text(&report, "served_by"), route.server());
                assert_eq!(report["body_length"], inner.len());
            }
            assert_eq!(served_by(&connection.ask(other.get("/"))), other.server());
        }
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let request =
                route.request("POST", "/", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nA: b\r\n\r\n");
            for byte in request {
                connection.send([byte]);
            }
            let answer = connection.response("POST");
            assert_eq!(text(&answer.json(), "served_by"), route.server());
            answer.text()
        });
    });
}

#[test]
fn heads_of_up_to_64_kib_are_routed() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            // The context comes last; the whole head is a little less than 64 KiB.
            let filler: String =
                (0..60).map(|number| format!("X-Filler-{number}: {}\r\n", "x".repeat(1000))).collect();
            let head = format!("GET / HTTP/1.1\r\nHost: pod.test\r\n{filler}{}\r\n\r\n", route.header());
            assert!((60_000..65_536).contains(&head.len()), "{}", head.len());
            let answer = connection.ask(head);
            assert_eq!(text(&answer.json(), "served_by"), route.server());
            answer.text()
        });
    });
}

#[test]
fn both_routes_get_the_request_as_the_client_wrote_it() {
    in_lab(|lab| {
        use std::io::Write as _;
        let answer = |mut stream: &std::net::TcpStream, peer: &lab::Peer| {
            let _ = peer.wait_for(1);
            while !peer.received().ends_with(b"\r\n\r\n") && !peer.ended() {
                std::thread::yield_now();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            while !peer.ended() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Ok(())
        };
        let app = lab::Server::start(&lab.pod.netns, lab.pod.at(PORT), answer);
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], crate::scene::LOCAL));
        let alice_app = lab::Server::start(&lab.dev.netns, local, answer);
        let agent = lab::Agent::start(lab);
        let _alice = crate::scene::for_alice(lab, &agent).start(lab);

        for (route, server) in [(Route::Live, &app), (Route::Alice, &alice_app)] {
            let request = format!(
                "OPTIONS * HTTP/1.1\r\nhOsT:pod.test\r\nX-Empty:\r\nx-TABS: \t a\t b \t\r\n{}\r\nX-Bytes: \u{e9}\r\nx-empty: 2\r\n\r\n",
                route.header()
            );
            let mut connection = lab.client.connect(lab.pod.at(PORT));
            assert_eq!(connection.ask(&request).status, 200);
            let received =
                server.peers().into_iter().map(|peer| peer.received()).find(|bytes| !bytes.is_empty());
            assert_eq!(received.map(|bytes| String::from_utf8(bytes).unwrap()), Some(request), "{route:?}");
        }
    });
}
