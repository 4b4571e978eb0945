//! What is not HTTP/1.1 goes to the app untouched and without waiting.

use lab::{Agent, App, Connection, Curl, Host, Lab, Nginx, Server};

use crate::scene::{ALICE, DIRECT, PORT, assert_carried, for_alice, in_lab};

#[test]
fn tls_reaches_the_app_untouched() {
    in_lab(|lab| {
        let nginx = Nginx::tls(lab, &lab.pod, &[PORT, DIRECT]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let certificate = nginx.certificate().to_string_lossy();
        // curl accepts only nginx's own certificate, so nobody is in between.
        let resolve = format!("pod.test:{PORT}:{}", lab.pod.v4);
        let arguments = ["--cacert", &certificate, "--resolve", &resolve];
        let url = format!("https://pod.test:{PORT}/who");
        let answer = Curl::on(&lab.client).request(&url, &arguments, &[ALICE]).answer();
        assert_eq!(answer.body, format!("nginx in {}\n", lab.pod.netns.name()));
        assert_idle_connection_is_carried(lab);
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_first() {
    in_lab(|lab| {
        let _smtp = App::smtp(lab, &lab.pod, PORT);
        let agent = Agent::start(lab);
        let before = smtp_dialog(&lab.client, lab);
        let _alice = for_alice(lab, &agent).start(lab);
        assert_eq!(smtp_dialog(&lab.client, lab), before);
        assert!(before[0].starts_with("220 ") && before.last().unwrap().starts_with("221 "), "{before:?}");
        assert_idle_connection_is_carried(lab);
    });
}

#[test]
fn a_binary_protocol_reaches_the_app_untouched() {
    in_lab(|lab| {
        let _redis = App::redis(lab, &lab.pod, PORT);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        let value: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        connection.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()));
        connection.send(&value);
        connection.send("\r\n");
        assert_eq!(connection.line(), "+OK\r\n");
        connection.send("GET k\r\n");
        assert_eq!(connection.line(), "$300000\r\n");
        assert!(connection.exactly(value.len()) == value);
        assert_carried(lab);
    });
}

#[test]
fn a_client_that_says_nothing_has_a_connection_to_the_app() {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let connection = lab.client.connect(lab.pod.at(PORT));
        let peer = app.peer(0);
        assert_carried(lab);
        drop(connection);
        peer.wait_for_end();
        assert_eq!(peer.received(), b"");
    });
}

#[test]
fn a_request_after_raw_bytes_is_not_routed() {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        let raw = b"*1\r\n$4\r\nPING\r\n";
        connection.send(raw);
        assert_eq!(app.peer(0).wait_for(raw.len()), raw);
        assert_carried(lab);
        let request = crate::scene::Route::Alice.get("/");
        connection.send(&request);
        let all = [raw.as_slice(), &request].concat();
        assert_eq!(app.peer(0).wait_for(all.len()), all);
    });
}

/// Opens a connection that says nothing, and sees the agent carry it.
#[track_caller]
fn assert_idle_connection_is_carried(lab: &Lab) {
    let _connection: Connection = lab.client.connect(lab.pod.at(PORT));
    assert_carried(lab);
}

/// A mail, from greeting to goodbye; gives what the server said.
#[track_caller]
fn smtp_dialog(from: &Host, lab: &Lab) -> Vec<String> {
    let mut connection = from.connect(lab.pod.at(PORT));
    let mut said = vec![connection.line()];
    let commands = [
        "HELO client.test\r\n",
        "MAIL FROM:<a@client.test>\r\n",
        "RCPT TO:<b@pod.test>\r\n",
        "DATA\r\n",
        "Subject: x-dev: alice\r\n\r\nGET / HTTP/1.1\r\nx-dev: alice\r\n\r\n.\r\n",
        "QUIT\r\n",
    ];
    for command in commands {
        connection.send(command);
        said.push(connection.line());
    }
    said
}
