//! Each direction of a connection ends on its own.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use lab::{Agent, App, Peer, Server, eventually};

use crate::scene::{
    LOCAL, PORT, Route, assert_carried, for_alice, in_lab, intercepted_by_each_datapath, served_by, text,
};

#[test]
fn a_client_that_has_finished_sending_gets_its_answer() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            connection.send(route.get("/slow?ms=200"));
            connection.finish_sending();
            let answer = connection.response("GET");
            assert_eq!(text(&answer.json(), "served_by"), route.server());
            (answer.text(), connection.rest_text())
        });
    });
}

#[test]
fn an_app_that_has_finished_sending_still_receives() {
    in_lab(|lab| {
        let app = Server::start(&lab.pod.netns, lab.pod.at(PORT), |mut stream: &TcpStream, peer: &Peer| {
            stream.write_all(b"that was all\n")?;
            stream.shutdown(Shutdown::Write)?;
            while !peer.ended() {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);

        let mut connection = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(connection.rest(), b"that was all\n");
        // Half-closed connections are not `established`: the agent's side of this one shows in `ss` all the same.
        eventually("the agent carries the connection", || {
            lab.pod.netns.sh("ss -Htn").lines().filter(|line| line.contains(":8080")).count() >= 3
        });
        let late = [b"late ".as_slice(), &[0, 1, 2, 255]].concat();
        connection.send(&late);
        assert_eq!(app.peer(0).wait_for(late.len()), late);
        assert!(!app.peer(0).ended());
        connection.finish_sending();
        app.peer(0).wait_for_end();
        assert_eq!(app.peer(0).received(), late);
    });
}

#[test]
fn a_client_that_resets_its_connection_is_gone_for_the_app() {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        connection.send(Route::Live.get("/never-answered"));
        assert_eq!(app.peer(0).wait_for(1).first(), Some(&b'G'));
        assert_carried(lab);
        connection.reset();
        app.peer(0).wait_for_end();
    });
}

#[test]
fn an_app_that_closes_without_a_word_is_seen_to_close() {
    in_lab(|lab| {
        let _app = Server::start(&lab.pod.netns, lab.pod.at(PORT), |_: &TcpStream, peer: &Peer| {
            let _ = peer.wait_for(1);
            Ok(())
        });
        let agent = Agent::start(lab);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice", "it is carried");
        connection.send(Route::Live.get("/"));
        assert_eq!(connection.rest(), b"");
    });
}
