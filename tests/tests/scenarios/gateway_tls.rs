//! TLS to visitors and to the ingress, HTTP/2 in it, and WebSockets through both.

use std::{fs, path::Path};

use lab::{
    App, Certificate, Curl, Gateway, GatewayOptions, Kind, Lab, Nginx, WebSockets, eventually, http2_client,
    websocket_dialog,
};
use serde_json::json;

use crate::{
    gateway::{INGRESS, KEY, Report, Visited, open, visit},
    scene::{PORT, in_lab, text},
};

fn certificate(lab: &Lab) -> Certificate {
    Certificate::new(lab, &["gateway.test", "*.preview.test"], Kind::Ecdsa)
}

fn arguments(certificate: &Certificate) -> Vec<String> {
    let [file, key] = certificate.files();
    let options = ["--tls-cert", &file, "--tls-key", &key, "--public-url", "https://gateway.test"];
    options.iter().chain(&["--preview-domain", "preview.test"]).map(|&option| option.to_owned()).collect()
}

fn https(
    lab: &Lab,
    gateway: &Gateway,
    certificate: &Certificate,
    url: &str,
    more: &[&str],
    headers: &[&str],
) -> Visited {
    let file = certificate.path().to_string_lossy().into_owned();
    visit(&lab.client, gateway, url, &[&["--cacert", &file], more].concat(), headers)
}

#[test]
fn visitors_are_served_in_tls_with_either_protocol_and_cookies_are_for_tls_only() {
    in_lab(|lab| {
        let certificate = certificate(lab);
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let arguments = arguments(&certificate);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.node.at(INGRESS)).with(&arguments));
        let created = gateway.create(&lab.dev, &["--key", KEY]);
        let opened = https(lab, gateway, &certificate, &text(&created, "share_link"), &[], &[]);
        assert!(opened.status == 303 && opened.header("set-cookie").ends_with("; Secure"), "{opened:?}");
        for (version, shown) in [("--http2", "HTTP/2 "), ("--http1.1", "HTTP/1.1 ")] {
            let link = text(&created, "link");
            assert!(link.starts_with("https://") && link.ends_with(".preview.test/"), "{link}");
            let seen = https(lab, gateway, &certificate, &link, &[version], &[]);
            assert!(seen.head.starts_with(shown), "{seen:?}");
            let cookie = opened.cookie();
            let by_cookie =
                https(lab, gateway, &certificate, "https://gateway.test/", &[version], &[&cookie]);
            for report in [seen.report(), by_cookie.report()] {
                assert_eq!(report.header("x-redirector-intercept"), KEY);
                assert_eq!(report.header("x-forwarded-proto"), "https");
                assert_eq!(report.header("x-forwarded-port"), "443");
            }
        }
        // Names in TLS and in the request may differ (connections are shared, RFC 9113 §9.1.1); the request's counts.
        let page = https(
            lab,
            gateway,
            &certificate,
            "https://gateway.test/",
            &[],
            &["host: aaaaaaaaaaaaaaaaaaaaaaaaaa.preview.test"],
        );
        assert_eq!(page.status, 404);
    });
}

#[test]
fn the_ingress_is_reached_in_tls_by_the_name_it_serves() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["shop.test"], Kind::Ecdsa);
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _ingress = Nginx::tls_ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT), &certificate);
        let ca = certificate.path().to_string_lossy().into_owned();
        let options = GatewayOptions::new(lab.node.at(INGRESS)).with(&["--ingress-tls"]);
        let with_l5 = options.clone().with(&["--ingress-l5", "shop.test", "--ingress-ca", &ca]);
        {
            let gateway = &Gateway::start(lab, &with_l5);
            let (_, cookie) = open(lab, gateway, &[]);
            let report = visit(&lab.client, gateway, "http://anything.test/", &[], &[&cookie]).report();
            assert_eq!(report.header("x-seen-sni"), "shop.test");
            assert_eq!(report.header("host"), "shop.test");
            assert_eq!(report.header("x-forwarded-host"), "anything.test");
            assert_eq!(report.header("x-redirector-intercept"), KEY);
        }
        // One that shows a certificate which nobody vouches for, or another name, is not spoken to.
        for more in [&["--ingress-l5", "shop.test"][..], &["--ingress-l5", "other.test", "--ingress-ca", &ca]]
        {
            let gateway = &Gateway::start(lab, &options.clone().with(more));
            assert_eq!(visit(&lab.client, gateway, "http://shop.test/", &[], &[]).status, 502, "{more:?}");
        }
    });
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart() {
    in_lab(|lab| {
        let (old, new) = (certificate(lab), certificate(lab));
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let arguments = arguments(&old);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.pod.at(PORT)).with(&arguments));
        // Each is signed by itself only.
        let shows = |certificate: &Path| {
            let connect = format!("gateway.test:443:{}", gateway.address());
            let arguments = ["--connect-to", &connect, "--cacert", &certificate.to_string_lossy()];
            Curl::on(&lab.client).request("https://gateway.test/", &arguments, &[]).output().code == Some(0)
        };
        assert!(shows(old.path()) && !shows(new.path()));
        for (from, to) in new.files().iter().zip(old.files()) {
            fs::copy(from, to).expect("the new file in the place of the old one");
        }
        eventually("the new certificate is shown", || shows(new.path()));
        assert!(gateway.log().contains("the certificate has changed"));
    });
}

#[test]
fn websockets_go_through_tls() {
    in_lab(|lab| {
        let certificate = certificate(lab);
        let _app = App::websocket(lab, &lab.pod, WebSockets::Python, "app", &[PORT]);
        let _ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let arguments = arguments(&certificate);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.node.at(INGRESS)).with(&arguments));
        let url = format!("wss://{}/socket", gateway.address());
        let dialog = websocket_dialog(lab, &lab.client, WebSockets::Python, &url, &[]).json();
        assert_eq!((&dialog["texts"][19], &dialog["large_same"]), (&"app: message 19".into(), &true.into()));
    });
}

#[test]
fn a_websocket_over_http2_becomes_one_over_http1() {
    in_lab(|lab| {
        let _websockets = App::websocket(lab, &lab.pod, WebSockets::Python, "sockets", &[PORT + 1]);
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.pod.at(PORT + 1)));
        let socket = json!({
            ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/socket",
            ":authority": "shop.test", "sec-websocket-version": "13",
        });
        // A text frame "hi", masked with zeros (RFC 6455 §5.2).
        let frame = "8182000000006869";
        let requests = json!({ "requests": [
            { "headers": socket, "body_hex": frame, "open": true, "cancel": 8 },
            { "headers": { ":method": "CONNECT", ":authority": "shop.test:80" }, "body": "x" },
        ]});
        let answers = http2_client(lab, &lab.client, gateway.address(), &requests);
        assert_eq!(answers.answer(0)["status"], 200, "{answers:?}");
        assert!(text(answers.answer(0), "text").contains("sockets: hi"), "{answers:?}");
        assert_eq!(answers.answer(1)["status"], 405, "a tunnel to anywhere is not to be had");
    });
}

#[test]
fn a_websocket_over_http2_gets_the_answer_to_its_last_words() {
    in_lab(|lab| {
        let _websockets = App::websocket(lab, &lab.pod, WebSockets::Python, "sockets", &[PORT]);
        let _ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.node.at(INGRESS)));
        // A Close with the code 4000 and the end of the stream, as browsers do it.
        let socket = json!({
            "headers": {
                ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/socket",
                ":authority": "shop.test", "sec-websocket-version": "13",
            },
            "body_hex": "8882000000000fa0",
        });
        let requests = vec![socket; 20];
        let answers = http2_client(lab, &lab.client, gateway.address(), &json!({ "requests": requests }));
        for number in 0..20 {
            // A Close as well, with the same code.
            assert_eq!(answers.answer(number)["length"], 4, "{number}: {answers:?}");
        }
    });
}

#[test]
fn several_requests_share_an_http2_connection() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.node.at(INGRESS)));
        let (_, cookie) = open(lab, gateway, &[]);
        let ticket = cookie.trim_start_matches("cookie: ");
        let request = |number: usize| {
            let cookie = if number.is_multiple_of(2) { format!("a=1; {ticket}") } else { "a=1".to_owned() };
            json!({ "headers": { ":path": format!("/{number}"), ":authority": "shop.test", "cookie": cookie } })
        };
        let requests: Vec<_> = (0..100).map(request).collect();
        let answers = http2_client(
            lab,
            &lab.client,
            gateway.address(),
            &json!({ "requests": requests, "together": true }),
        );
        for number in 0..100 {
            let report = Report(answers.report(number));
            assert_eq!(text(&report.0, "target"), format!("/{number}"));
            assert_eq!(report.all("x-redirector-intercept").len(), usize::from(number.is_multiple_of(2)));
            assert_eq!(report.header("cookie"), "a=1");
        }
    });
}
