//! How a side ends TLS is what the other side sees.

use lab::{Agent, App, Certificate, Curl, Kind, eventually, tls_ends_client, tls_ends_server};

use crate::{
    scene::{ALICE, DIRECT, LOCAL, PORT, for_alice, in_lab},
    tls::{https, with_keys},
};

#[test]
fn an_end_without_close_notify_stays_one_and_a_clean_one_stays_clean() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let servers = [DIRECT, PORT].map(|port| tls_ends_server(lab, &lab.pod, port, &certificate));
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = with_keys(for_alice(lab, &agent), &[&certificate]).start(lab);
        let routed = https(Curl::on(&lab.client), lab, &certificate, PORT, "/", &[], &[ALICE]);
        assert!(routed.answer().body.contains("\"alice\""), "TLS ends at the agent");

        for (text, end) in [
            ("leave clean", "not"),
            ("leave ragged", "not"),
            ("leave clean", "clean"),
            ("something", "clean"),
            ("something", "ragged"),
        ] {
            let [direct, through] =
                [DIRECT, PORT].map(|port| tls_ends_client(lab, &lab.client, lab.pod.at(port), text, end));
            assert_eq!(through, direct, "{text}, {end}");
            if let Some(how) = text.strip_prefix("leave ") {
                assert_eq!((&through["heard"], &through["ended"]), (&"bye\n".into(), &how.into()));
            } else {
                let line = format!("'{text}' ended {end}");
                for server in &servers {
                    eventually(&format!("the app prints {line}"), || server.log().contains(&line));
                }
            }
        }
    });
}
