//! Apps that answer before they have the whole request. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use inspected::{WANTED, ask, get, read_answers, with_client};
use std::io::Write;
use std::thread;
use std::time::Duration;

/// More than a packet needs.
const SHORT: Duration = Duration::from_millis(10);

/// Heads of the same body, for an app that answers them at once and reads the body all the same; and the body, in two parts, of which the
/// second begins as a request for the developer does.
fn uploads() -> [(String, [String; 2]); 2] {
    let (first, second) = ("x".repeat(1000), get(WANTED) + &"x".repeat(1000));
    let length = first.len() + second.len();
    let chunk = format!("{length:x}\r\n");
    let head = |body: usize, field: &str| format!("POST / HTTP/1.1\r\nX-Early: {body}\r\n{field}\r\n\r\n");
    let counted = head(length, &format!("Content-Length: {length}"));
    let last = "\r\n0\r\n\r\n";
    let chunked = head(chunk.len() + length + last.len(), "Transfer-Encoding: chunked");
    [(counted, [first.clone(), second.clone()]), (chunked, [chunk + &first, second + last])]
}

#[test]
fn the_rest_of_a_request_that_was_answered_is_the_apps_and_the_next_one_is_judged() {
    with_client(|client| {
        client.inspect();
        for (number, (head, body)) in uploads().into_iter().enumerate() {
            let mut connection = client.connect();
            ask(&mut connection, &get(""), 1);
            for _ in 0..2 {
                ask(&mut connection, &head, 1);
                for part in &body {
                    connection.write_all(part.as_bytes()).unwrap();
                    thread::sleep(SHORT);
                }
                // It has read all of it.
                ask(&mut connection, &get(""), 1);
            }
            client.counted(&[
                ("held", number as u64),
                ("refused_at_boundary", 0),
                ("interesting_heads", number as u64),
            ]);
            ask(&mut connection, &head, 1);
            connection.write_all(body.concat().as_bytes()).unwrap();
            thread::sleep(SHORT);
            ask(&mut connection, &get(WANTED), 1);
            client.counted(&[("held", number as u64 + 1), ("lost_sight", 0), ("raw_connections", 0)]);
        }
    });
}

#[test]
fn a_request_in_one_segment_with_the_rest_of_an_answered_one_is_the_apps() {
    with_client(|client| {
        client.inspect();
        for (number, (head, body)) in uploads().into_iter().enumerate() {
            let mut connection = client.connect();
            ask(&mut connection, &head, 1);
            connection.write_all((body.concat() + &get(WANTED)).as_bytes()).unwrap();
            read_answers(&mut connection, 1);
            client.counted(&[("refused_at_boundary", number as u64 + 1), ("lost_sight", 0)]);
            ask(&mut connection, &get(WANTED), 1);
            client.counted(&[("held", number as u64 + 1), ("raw_connections", 0)]);
        }
    });
}
