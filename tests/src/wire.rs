//! What passes between the pod and the rest of the lab, as tcpdump sees it.

use std::{collections::HashMap, io::ErrorKind};

use crate::{
    http::Connection,
    lab::Lab,
    log::Stream,
    process::Process,
    wait::{eventually, eventually_some},
};

/// Nobody listens here, so that who asks is answered with a reset.
const CLOSED: u16 = 9;

/// Looks for segments with RST, of IPv4 and IPv6. Only they and those with FIN are captured: there may be any number of
/// others.
#[derive(Debug)]
pub struct Wire {
    tcpdump: Process,
}

/// The segments with RST that passed, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resets {
    /// Of connections that had not ended.
    pub early: Vec<String>,
    /// Both ends had finished, and one of them was already gone when a segment of the other came that was of no use any
    /// more: packets of one connection that two processors send may overtake each other.
    pub after_the_end: Vec<String>,
}

impl Wire {
    /// Begins to look.
    #[must_use]
    pub fn of_pod(lab: &Lab) -> Self {
        let mut command = lab.node.netns.command("tcpdump");
        command.args(["-i", "veth-pod", "-n", "-S", "-l", "--immediate-mode"]);
        // FIN is 1 and RST is 4. An IPv6 header has 40 bytes; 6 is TCP.
        command.arg("tcp[13] & 5 != 0 or (ip6[6] = 6 and ip6[53] & 5 != 0)");
        let tcpdump = Process::spawn("tcpdump", &mut command, lab.logs());
        eventually("tcpdump listens", || {
            tcpdump.log().lines(Stream::Stderr).iter().any(|line| line.contains("listening on"))
        });
        Self { tcpdump }
    }

    /// All until now. Makes one of its own, and gives up when that is not seen.
    #[track_caller]
    #[must_use]
    pub fn resets(&self, lab: &Lab) -> Resets {
        let refused = lab.client.netns.run(|| Connection::open(lab.pod.at(CLOSED)));
        assert!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        let own = format!("{}.{CLOSED} >", lab.pod.v4);
        eventually_some("tcpdump has seen the last reset", || {
            let mut lines = self.tcpdump.log().lines(Stream::Stdout);
            let at = lines.iter().position(|line| line.contains(&own))?;
            lines.truncate(at);
            Some(Resets::among(lines))
        })
    }
}

impl Resets {
    fn among(lines: Vec<String>) -> Self {
        let mut resets = Self::default();
        // Who finished towards whom, and the number after the FIN.
        let mut finished = HashMap::new();
        for line in lines {
            let Some(Segment { from, to, flags, next }) = Segment::read(&line) else { continue };
            let (from, to) = (from.to_owned(), to.to_owned());
            if flags.contains('R') {
                let at_the_end = finished.get(&(from.clone(), to.clone())) == Some(&next);
                let after_the_end = flags == "R" && at_the_end && finished.contains_key(&(to, from));
                let kind = if after_the_end { &mut resets.after_the_end } else { &mut resets.early };
                kind.push(line);
            } else {
                finished.insert((from, to), next.wrapping_add(1));
            }
        }
        resets
    }
}

/// What a line of tcpdump says of a segment.
struct Segment<'a> {
    from: &'a str,
    to: &'a str,
    flags: &'a str,
    /// The sequence number after the payload.
    next: u32,
}

impl<'a> Segment<'a> {
    /// `12:00:00.000000 IP 10.77.0.2.8080 > 10.77.0.3.1024: Flags [F.], seq 1:3, ack 4, …`
    fn read(line: &'a str) -> Option<Self> {
        let (ends, rest) = line.split_once(": Flags [")?;
        let (from, to) = ends.split_once(" > ")?;
        let (flags, rest) = rest.split_once("], seq ")?;
        let numbers = rest.split(',').next()?;
        let next = numbers.split(':').next_back()?.parse().ok()?;
        Some(Self { from: from.rsplit(' ').next()?, to, flags, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(segments: &[&str]) -> Vec<String> {
        segments.iter().map(|segment| format!("11:54:47.702848 IP6 {segment}, win 63, length 0")).collect()
    }

    #[test]
    fn a_reset_is_early_unless_both_ends_had_finished_and_it_comes_right_after() {
        const CLIENT: &str = "fd77::3.35244 > fd77::2.8080: Flags [F.], seq 10:12, ack 20";
        const APP: &str = "fd77::2.8080 > fd77::3.35244: Flags [F.], seq 20, ack 13";
        const RESET: &str = "fd77::2.8080 > fd77::3.35244: Flags [R], seq 21";
        const OTHER: &str = "fd77::2.8080 > fd77::3.35244: Flags [R], seq 20";
        let resets = Resets::among(lines(&[CLIENT, APP, RESET, OTHER]));
        assert_eq!(resets.after_the_end, lines(&[RESET]));
        assert_eq!(resets.early, lines(&[OTHER]));
        for early in [&[RESET][..], &[CLIENT, RESET], &[APP, RESET]] {
            assert_eq!(Resets::among(lines(early)).early, lines(&[RESET]));
        }
    }
}
