//! The developer's machine, or the server on it, goes away and comes back.

use std::io::ErrorKind;

use lab::{App, Intercept, eventually};

use crate::scene::{
    ALICE, LOCAL, PORT, Route, Scene, assert_routing, eventually_answers, for_alice, in_lab,
    intercepted_by_each_datapath, served_by, who_answers,
};

#[test]
fn after_ctrl_c_the_intercept_is_gone() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        assert_routing(lab);
        assert_eq!(alice.interrupt().code(), Some(0));
        assert_eq!(agent.list().len(), 0);
        assert_eq!(who_answers(lab, ALICE), "app");
        eventually("nobody intercepts, so nothing is attached", || lab.attached().is_empty());
    });
}

#[test]
fn while_the_developer_is_gone_the_app_answers() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice");
        alice.kill();
        eventually_answers(lab, ALICE, "app");
        // Also on the connection that she served before.
        assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "app");

        // She takes up her own intercept again: she is not refused as a second one.
        let _back = for_alice(lab, &agent).start(lab);
        eventually_answers(lab, ALICE, "alice");
        assert_eq!(agent.list().len(), 1);
        assert_routing(lab);
    });
}

#[test]
fn a_laptop_that_falls_asleep_is_noticed_and_welcome_when_it_wakes() {
    intercepted_by_each_datapath(|scene| {
        scene.alice.freeze();
        eventually_answers(scene.lab, ALICE, "app");
        let list = scene.agent.list();
        assert!(list.iter().all(|intercept| intercept["connected"] == false), "{list:?}");
        scene.alice.thaw();
        eventually_answers(scene.lab, ALICE, "alice");
        scene.assert_routing();
    });
}

#[test]
fn a_cable_that_is_pulled_is_noticed_and_the_developer_comes_back() {
    intercepted_by_each_datapath(|scene| {
        let lab = scene.lab;
        lab.node.netns.ip("link set veth-dev down");
        eventually_answers(lab, ALICE, "app");
        lab.node.netns.ip("link set veth-dev up");
        eventually_answers(lab, ALICE, "alice");
        scene.assert_routing();
    });
}

#[test]
fn a_local_server_that_refuses_gives_a_502_that_names_the_intercept() {
    in_lab(|lab| {
        let Scene { alice: _alice, agent: _agent, alice_app, app: _app, .. } = Scene::new(lab);
        drop(alice_app);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        let answer = connection.ask(Route::Alice.get("/"));
        assert_eq!(answer.status, 502);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            body.contains("alice") && body.contains("127.0.0.1:3000"),
            "names intercept and server: {body:?}"
        );
        assert_eq!(served_by(&connection.ask(Route::Live.get("/"))), "app", "the connection stays usable");

        let _again = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice");
    });
}

#[test]
fn a_local_server_that_dies_in_mid_answer_does_not_harm_the_app() {
    in_lab(|lab| {
        let Scene { alice: _alice, agent: _agent, alice_app, app: _app, .. } = Scene::new(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice");
        connection.send(Route::Alice.get("/stall"));
        drop(alice_app);
        // Nothing had been answered yet: a 502 is honest, and so is the end of the connection. Silence is not.
        match connection.try_response("GET") {
            Ok(answer) => assert_eq!(answer.status, 502),
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer and no end"),
        }
        assert_eq!(who_answers(lab, Route::Live.header()), "app");
    });
}

#[test]
fn each_routed_request_is_a_line_on_the_developers_screen() {
    intercepted_by_each_datapath(|scene| {
        let lab = scene.lab;
        let mut connection = scene.connect();
        connection.ask(Route::Alice.request("POST", "/first?a=b", "Content-Length: 3\r\n", "abc"));
        connection.ask(Route::Alice.get("/status/404"));
        connection.ask(Route::Live.get("/not-hers"));
        eventually("both requests are on the screen", || {
            let lines = scene.alice.lines();
            let has = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
            has(&["POST", "/first", "200"]) && has(&["GET", "/status/404", "404"])
        });
        // A request of hers after the live one: when it is on the screen, the live one is not to come any more.
        assert_eq!(who_answers(lab, ALICE), "alice");
        eventually("the last request is on the screen", || {
            scene.alice.lines().iter().any(|line| line.contains("/whoami"))
        });
        assert!(!scene.alice.lines().iter().any(|line| line.contains("/not-hers")));
    });
}

#[test]
fn an_agent_that_is_not_there_is_named_in_the_error() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        drop(alice);
        let intercept = Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "alice");
        let address = agent.address().to_string();
        let token = agent.token_file();
        drop(agent);
        let refusal = intercept.token_file(&token).refused();
        assert!(refusal.stderr.contains(&address), "{refusal:?}");
    });
}
