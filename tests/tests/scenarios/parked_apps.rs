//! What apps see of connections that are parked: a plain end of stream.

use lab::{App, Ends, Family, Nginx, Stream, eventually};

use crate::parking::{Waiting, matching, request};
use crate::scene::{PORT, in_lab};

/// Parks connections of an app, one at its first request and one at a later one.
fn park_two(waiting: &Waiting<'_>, path: &str) {
    for order in [[true, true], [false, true]] {
        let mut connection = waiting.connect(Family::V4);
        for matching in order {
            let answer = connection.ask(request(path, matching));
            let by_alice = answer.text().contains("\"served_by\": \"alice\"");
            assert_eq!(by_alice, matching, "{}", answer.text());
        }
    }
    assert_eq!(waiting.counted("parked"), 2);
}

#[test]
fn an_app_sees_a_plain_end_of_stream() {
    for how in [Ends::Node, Ends::Threads] {
        in_lab(|lab| {
            let app = App::ends(lab, &lab.pod, how, PORT);
            let waiting = Waiting::without_app(lab);
            let _alice = waiting.intercept("inspect");
            park_two(&waiting, "/");
            eventually("both have ended", || {
                app.log().lines(Stream::Stdout).iter().filter(|line| *line == "end").count() == 2
            });
            let errors = matching(app.log(), "error");
            assert!(errors.is_empty(), "{how:?}: {errors:?}");
            drop(waiting);
        });
    }
}

#[test]
fn nginx_sees_nothing_unusual() {
    in_lab(|lab| {
        let nginx = Nginx::start(lab, &lab.pod, &[PORT]);
        let waiting = Waiting::without_app(lab);
        let _alice = waiting.intercept("inspect");
        park_two(&waiting, "/who");
        let errors = nginx.log().lines(Stream::Stderr);
        assert!(errors.is_empty(), "{errors:?}");
        drop(waiting);
    });
}

#[test]
fn gunicorn_sees_nothing_unusual() {
    in_lab(|lab| {
        let app = App::gunicorn(lab, &lab.pod, PORT);
        let waiting = Waiting::without_app(lab);
        let _alice = waiting.intercept("inspect");
        park_two(&waiting, "/");
        for word in ["[ERROR]", "[WARNING]", "Traceback"] {
            let found = matching(app.log(), word);
            assert!(found.is_empty(), "{found:?}");
        }
        drop(waiting);
    });
}
