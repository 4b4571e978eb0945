//! What passes between the pod and the rest of the lab, as tcpdump sees it.

use std::io::ErrorKind;

use crate::{
    http::Connection,
    lab::Lab,
    log::Stream,
    process::Process,
    wait::{eventually, eventually_some},
};

/// Nobody listens here, so that who asks is answered with a reset.
const CLOSED: u16 = 9;

/// The segments with RST, of IPv4 and IPv6. Only they are captured: there may be any number of others.
#[derive(Debug)]
pub struct Resets {
    tcpdump: Process,
}

impl Resets {
    /// Begins to look.
    #[must_use]
    pub fn of_pod(lab: &Lab) -> Self {
        let mut command = lab.node.netns.command("tcpdump");
        command.args(["-i", "veth-pod", "-n", "-l", "--immediate-mode"]);
        // An IPv6 header has 40 bytes; 6 is TCP.
        command.arg("tcp[13] & 4 != 0 or (ip6[6] = 6 and ip6[53] & 4 != 0)");
        let tcpdump = Process::spawn("tcpdump", &mut command, lab.logs());
        eventually("tcpdump listens", || {
            tcpdump.log().lines(Stream::Stderr).iter().any(|line| line.contains("listening on"))
        });
        Self { tcpdump }
    }

    /// All until now, one line each. Makes one of its own, and gives up when that is not seen.
    #[track_caller]
    #[must_use]
    pub fn until_now(&self, lab: &Lab) -> Vec<String> {
        let refused = lab.client.netns.run(|| Connection::open(lab.pod.at(CLOSED)));
        assert!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        let own = format!("{}.{CLOSED} >", lab.pod.v4);
        eventually_some("tcpdump has seen the last reset", || {
            let mut lines = self.tcpdump.log().lines(Stream::Stdout);
            let at = lines.iter().position(|line| line.contains(&own))?;
            lines.truncate(at);
            Some(lines)
        })
    }
}
