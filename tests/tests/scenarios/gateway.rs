//! The preview gateway in front of an unmodified nginx: what the app behind it is sent, and what visitors get.

use lab::{App, Curl, Gateway, GatewayOptions, Host, Lab, Nginx};
use serde_json::Value;

use crate::scene::{PORT, in_lab, text};

/// Where the ingress listens, on the node.
pub const INGRESS: u16 = 8001;

/// A key of an intercept that nobody has: what is injected can be seen without one.
pub const KEY: &str = "abcdefghijklmnop";

/// The echo app in the pod, nginx in front of it, and the gateway in front of that. (Dropped in this order.)
pub struct Site {
    pub gateway: Gateway,
    pub ingress: Nginx,
    pub app: App,
}

impl Site {
    pub fn new(lab: &Lab, arguments: &[&str]) -> Self {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let options = GatewayOptions::new(lab.node.at(INGRESS)).with(arguments);
        Self { gateway: Gateway::start(lab, &options), ingress, app }
    }
}

/// A visitor with curl: `host` is what they have in the address bar. Gives status, headers and body.
pub fn visit(from: &Host, gateway: &Gateway, url: &str, arguments: &[&str], headers: &[&str]) -> Visited {
    let (_, rest) = url.split_once("://").expect("a URL");
    let name = rest.split('/').next().expect("a host");
    let host = name.split(':').next().expect("a name");
    let port =
        name.split_once(':').map_or(if url.starts_with("https") { "443" } else { "80" }, |(_, port)| port);
    let connect = format!("{host}:{port}:{}", gateway.address());
    let arguments = [&["--connect-to", &connect, "--include", "--path-as-is"], arguments].concat();
    let answer = Curl::on(from).request(url, &arguments, headers).answer();
    let mut text = answer.body.as_str();
    // Interim answers come first.
    let (head, body) = loop {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        if !head.starts_with("HTTP/1.1 1") {
            break (head, rest);
        }
        text = rest;
    };
    Visited { status: answer.status, head: head.to_owned(), body: body.to_owned() }
}

#[derive(Clone, Debug)]
pub struct Visited {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Visited {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> String {
        self.all(name).first().unwrap_or_else(|| panic!("no {name} in {self:?}")).clone()
    }

    /// What the app reported that it was sent.
    #[track_caller]
    pub fn report(&self) -> Report {
        assert_eq!(self.status, 200, "{self:?}");
        Report(
            serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no report ({error}): {self:?}")),
        )
    }

    /// The cookie that was set, as a request has it.
    #[track_caller]
    pub fn cookie(&self) -> String {
        let cookie = self.header("set-cookie");
        format!("cookie: {}", cookie.split(';').next().unwrap_or_default())
    }
}

/// The app's report of a request.
#[derive(Debug)]
pub struct Report(pub Value);

impl Report {
    /// All lines of a header, in their order.
    pub fn all(&self, name: &str) -> Vec<String> {
        let lines = self.0["headers"].as_array().expect("headers").iter();
        lines
            .filter(|line| line[0].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name)))
            .map(|line| line[1].as_str().expect("a value").to_owned())
            .collect()
    }

    /// The only line of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> String {
        let lines = self.all(name);
        assert_eq!(lines.len(), 1, "{name}: {:?}", self.0);
        lines[0].clone()
    }

    /// No trace of any context.
    #[track_caller]
    pub fn assert_without_context(&self) {
        let report = self.0.to_string();
        assert!(!report.contains("redirector") && !report.contains(KEY), "{report}");
    }
}

/// The path of a link, and the host that it names.
fn share_path(created: &Value) -> String {
    let link = text(created, "share_link");
    link[link.find("/_p/").expect("a share link")..].to_owned()
}

/// A preview of [`KEY`], opened by its share link on `shop.test`; gives the cookie.
pub fn open(lab: &Lab, gateway: &Gateway, arguments: &[&str]) -> (Value, String) {
    let created = gateway.create(&lab.dev, &[&["--key", KEY], arguments].concat());
    let opened = visit(&lab.client, gateway, &format!("http://shop.test{}", share_path(&created)), &[], &[]);
    assert_eq!(opened.status, 303, "{opened:?}");
    (created, opened.cookie())
}

#[test]
fn who_opened_the_share_link_brings_the_context_in_all_places_and_others_bring_none() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let (_, cookie) = open(lab, gateway, &[]);
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let seen = |headers: &[&str]| {
                visit(&lab.client, gateway, "http://shop.test/cart?id=1", &[version], headers).report()
            };
            let report = seen(&[&cookie, "cookie: session=1", "accept-language: de"]);
            assert_eq!(report.header("x-redirector-intercept"), KEY);
            assert_eq!(report.header("baggage"), format!("redirector={KEY}"));
            assert_eq!(report.header("tracestate"), format!("redirector={KEY}"));
            let parent = report.header("traceparent");
            assert!(parent.len() == 55 && parent.starts_with("00-") && parent.ends_with("-01"), "{parent}");
            assert_eq!(report.header("cookie"), "session=1", "our own cookie is not the app's business");
            assert_eq!(report.header("accept-language"), "de");
            assert_eq!(report.header("host"), "shop.test");
            assert_eq!(text(&report.0, "target"), "/cart?id=1");

            let live = seen(&["cookie: session=1"]);
            live.assert_without_context();
            assert!(live.all("traceparent").is_empty() && live.header("cookie") == "session=1");
        }
    });
}

#[test]
fn what_the_visitor_has_of_baggage_and_trace_is_kept() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let (_, cookie) = open(lab, gateway, &[]);
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let headers = [
            &*cookie,
            "baggage: user=alice;p=1",
            "baggage: redirector=smuggled,x=2",
            &format!("traceparent: {parent}"),
            "tracestate: vendor=1,redirector=smuggled",
        ];
        let report = visit(&lab.client, gateway, "http://shop.test/", &[], &headers).report();
        assert_eq!(report.header("baggage"), format!("redirector={KEY},user=alice;p=1,x=2"));
        assert_eq!(report.header("traceparent"), parent);
        assert_eq!(report.header("tracestate"), format!("redirector={KEY},vendor=1"));
    });
}

#[test]
fn the_app_is_told_who_asked_and_how() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let report =
            visit(&lab.client, gateway, "http://shop.test/", &[], &["x-forwarded-for: 1.2.3.4"]).report();
        let client = lab.client.v4.to_string();
        assert_eq!(report.header("x-forwarded-for"), client);
        assert_eq!(report.header("x-forwarded-host"), "shop.test");
        assert_eq!(report.header("x-forwarded-proto"), "http");
        assert_eq!(report.header("x-forwarded-port"), "80");
        assert_eq!(report.header("forwarded"), format!("for={client};host=\"shop.test\";proto=http"));
    });
}

#[test]
fn a_preview_answers_on_a_host_of_its_own() {
    in_lab(|lab| {
        let arguments = ["--preview-domain", "preview.test", "--public-url", "http://gateway.test"];
        let Site { gateway, .. } =
            &Site::new(lab, &[&arguments[..], &["--ingress-l5", "shop.test"]].concat());
        let created = gateway.create(&lab.dev, &["--key", KEY]);
        let link = text(&created, "link");
        assert!(link.starts_with("http://") && link.ends_with(".preview.test/"), "{link}");
        let seen = visit(&lab.client, gateway, &link, &[], &[]);
        assert_eq!(seen.report().header("x-redirector-intercept"), KEY);
        assert_eq!(seen.report().header("host"), "shop.test", "--ingress-l5");
        assert_eq!(seen.report().header("x-forwarded-host"), link["http://".len()..].trim_end_matches('/'));
        assert!(seen.all("set-cookie").is_empty());
        // Its address has the id in it, which is nobody else's business.
        assert_eq!(
            (&*seen.header("referrer-policy"), &*seen.header("x-robots-tag")),
            ("same-origin", "noindex")
        );
        // The host says which preview, whatever a cookie says.
        let other = gateway.create(&lab.dev, &["--key", "zzzzzzzzzzzzzzzz"]);
        let id = text(&other, "share_link").rsplit('/').next().expect("an id").to_owned();
        let seen = visit(&lab.client, gateway, &link, &[], &[&format!("cookie: redirector-preview={id}")]);
        assert_eq!(seen.report().header("x-redirector-intercept"), KEY);

        let unknown = "http://aaaaaaaaaaaaaaaaaaaaaaaaaa.preview.test/";
        assert_eq!(visit(&lab.client, gateway, unknown, &[], &[]).status, 404);
        assert_eq!(visit(&lab.client, gateway, "http://www.preview.test/", &[], &[]).status, 404);
    });
}

#[test]
fn a_share_link_sets_a_cookie_and_leads_on() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let created = gateway.create(&lab.dev, &["--key", KEY]);
        let path = share_path(&created);
        let opened =
            visit(&lab.client, gateway, &format!("http://shop.test{path}?to=/cart%3Fid=1"), &[], &[]);
        assert_eq!((opened.status, &*opened.header("location")), (303, "/cart?id=1"));
        let cookie = opened.header("set-cookie");
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Secure"), "not on TLS: {cookie}");
        let seen = visit(&lab.client, gateway, "http://shop.test/", &[], &[&opened.cookie()]);
        // The live version has the same address: nobody may keep this one for it.
        assert_eq!((&*seen.header("cache-control"), &*seen.header("vary")), ("private, no-cache", "cookie"));
    });
}

#[test]
fn a_preview_that_has_ended_says_so_and_the_cookie_goes() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let (removed, removed_cookie) = open(lab, gateway, &["--name", "mine"]);
        let (expired, expired_cookie) = open(lab, gateway, &["--expires", "1s"]);
        assert_eq!(gateway.preview(&lab.dev, &["remove", "mine"]).code, Some(0));
        lab::eventually("the preview has expired", || gateway.list(&lab.dev).is_empty());
        let unknown = "cookie: redirector-preview=aaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
        for (cookie, status, words) in [
            (removed_cookie, 410, "has ended"),
            (expired_cookie, 410, "has expired"),
            (unknown, 404, "no such preview"),
        ] {
            let page = visit(&lab.client, gateway, "http://shop.test/cart", &[], &[&cookie]);
            assert!(page.status == status && page.body.contains(words), "{page:?}");
            assert!(
                page.header("set-cookie").starts_with("redirector-preview=; Path=/; Max-Age=0;"),
                "{page:?}"
            );
            assert_eq!(page.header("cache-control"), "no-store");
        }
        for created in [removed, expired] {
            let page =
                visit(&lab.client, gateway, &format!("http://shop.test{}", share_path(&created)), &[], &[]);
            assert!(page.status == 410 && page.all("set-cookie").is_empty(), "{page:?}");
        }
    });
}

#[test]
fn bodies_stream_both_ways_and_arrive_whole() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let (_, cookie) = open(lab, gateway, &[]);
        let file = lab.directory().join("upload");
        let content: Vec<u8> = (0..5_000_000u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(&file, &content).expect("a file");
        let upload = format!("@{}", file.display());
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            for headers in [&[&*cookie][..], &[&*cookie, "transfer-encoding: chunked"]] {
                if version == "--http2-prior-knowledge" && headers.len() > 1 {
                    continue;
                }
                let arguments = [version, "--data-binary", &upload, "--request", "PUT"];
                let report = visit(&lab.client, gateway, "http://shop.test/", &arguments, headers).report();
                assert_eq!(report.0["body_length"], content.len());
                assert_eq!(report.header("x-redirector-intercept"), KEY);
            }
            let chunked =
                visit(&lab.client, gateway, "http://shop.test/chunked?parts=50", &[version], &[&cookie]);
            assert_eq!(chunked.body.lines().count(), 50, "{chunked:?}");
            // A GET with a body of unknown length keeps it.
            let arguments = ["--http1.1", "--data-binary", "abc", "--request", "GET"];
            let headers = [&*cookie, "transfer-encoding: chunked"];
            let report = visit(&lab.client, gateway, "http://shop.test/", &arguments, &headers).report();
            assert_eq!(report.0["body_length"], 3);
        }
        for (path, status) in [("/status/204", 204), ("/status/304", 304), ("/status/500", 500)] {
            assert_eq!(
                visit(&lab.client, gateway, &format!("http://shop.test{path}"), &[], &[&cookie]).status,
                status
            );
        }
        let head = visit(&lab.client, gateway, "http://shop.test/", &["--head"], &[&cookie]);
        assert_eq!((head.status, &*head.body), (200, ""));
    });
}

#[test]
fn answers_come_as_they_are_made() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        // The app reads the request to its end only after it has answered: the answer overtakes the body.
        let mut connection = lab.client.connect(gateway.address());
        connection.send("POST /early HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\n01234");
        let answer = connection.response("POST");
        assert_eq!((answer.status, &answer.body[..]), (200, &b"early\n"[..]));
    });
}

#[test]
fn previews_are_listed_without_what_opens_them() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let created = gateway.create(&lab.dev, &["--key", KEY, "--name", "mine"]);
        let public = gateway.create(&lab.dev, &["--key", KEY, "--name", "open", "--auth", "public"]);
        let list = gateway.list(&lab.dev);
        assert_eq!(list.iter().map(|preview| text(preview, "name")).collect::<Vec<_>>(), ["mine", "open"]);
        let id = text(&created, "share_link").rsplit('/').next().expect("an id").to_owned();
        assert!(!format!("{list:?}").contains(&id), "{list:?}");
        assert_eq!(text(&list[1], "link"), text(&public, "link"));
        let table = gateway.preview(&lab.dev, &["list"]);
        assert!(table.stdout.contains("mine") && table.stdout.contains("open"), "{table:?}");

        let again = gateway.preview(&lab.dev, &["create", "--key", KEY, "--name", "mine"]);
        assert!(again.code == Some(1) && again.stderr.contains("mine"), "{again:?}");
        let none = gateway.preview(&lab.dev, &["remove", "other"]);
        assert!(none.code == Some(1) && none.stderr.contains("other"), "{none:?}");
    });
}

#[test]
fn the_link_is_printed_for_people_and_for_cameras() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &["--public-url", "https://gateway.test"]);
        let output = gateway.preview(&lab.dev, &["create", "--key", KEY, "--qr"]);
        let mut lines = output.stdout.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("https://gateway.test/_p/")), "{output:?}");
        assert!(output.stdout.contains('█'), "{output:?}");
    });
}

#[test]
fn nobody_manages_previews_without_a_token() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let created = gateway.create(&lab.dev, &["--key", KEY, "--name", "mine"]);
        let [_, address, ..] = gateway.connection();
        for method in ["GET", "POST"] {
            let url = format!("https://{address}/v1/previews");
            let answer = Curl::on(&lab.dev).request(&url, &["--insecure", "--request", method], &[]).answer();
            assert!(answer.status == 401 && !answer.body.contains("mine"), "{answer:?}");
        }
        // A token of somebody else may not end it; and ends its own when it is revoked.
        let token = |arguments: &[&str]| {
            let mut command = lab.node.netns.command(&lab::redirector_binary().to_string_lossy());
            let output = lab::CommandOutput::of(
                command.arg("token").args(arguments).args(["--agent", &gateway.socket()]),
            );
            assert_eq!(output.code, Some(0), "{output:?}");
            output.stdout.trim().to_owned()
        };
        let bob = lab.directory().join("bob");
        std::fs::write(&bob, token(&["create", "bob"])).expect("a token file");
        let as_bob = |arguments: &[&str]| {
            let mut command = lab.dev.netns.command(&lab::redirector_binary().to_string_lossy());
            command.arg("preview").args(arguments).args(["--gateway", &address]);
            lab::CommandOutput::of(command.arg("--gateway-token-file").arg(&bob))
        };
        let refused = as_bob(&["remove", "mine"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("another join token"), "{refused:?}");
        assert_eq!(as_bob(&["create", "--key", KEY, "--name", "his"]).code, Some(0));
        assert_eq!(gateway.list(&lab.dev).len(), 2);
        token(&["revoke", "bob"]);
        assert_eq!(gateway.list(&lab.dev).len(), 1);
        assert_eq!(as_bob(&["list"]).code, Some(1));
        let page =
            visit(&lab.client, gateway, &format!("http://shop.test{}", share_path(&created)), &[], &[]);
        assert_eq!(page.status, 303);
    });
}

#[test]
fn an_ingress_that_is_not_there_is_a_page() {
    in_lab(|lab| {
        let gateway = Gateway::start(lab, &GatewayOptions::new(lab.node.at(9)));
        let page = visit(&lab.client, &gateway, "http://shop.test/", &[], &[]);
        assert!(page.status == 502 && page.body.contains("can't be reached"), "{page:?}");
    });
}

#[test]
fn with_only_previews_nobody_else_gets_in() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &["--only-previews"]);
        assert_eq!(visit(&lab.client, gateway, "http://shop.test/", &[], &[]).status, 404);
        let (_, cookie) = open(lab, gateway, &[]);
        assert_eq!(visit(&lab.client, gateway, "http://shop.test/", &[], &[&cookie]).status, 200);
    });
}

#[test]
fn two_gateways_do_not_share_a_state_directory() {
    in_lab(|lab| {
        let site = Site::new(lab, &[]);
        let second = Gateway::refused(lab, &GatewayOptions::new(lab.node.at(INGRESS)));
        assert!(second.code == Some(1) && second.stderr.contains("another gateway uses"), "{second:?}");
        drop(site);
    });
}
