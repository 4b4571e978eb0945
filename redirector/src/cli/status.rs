//! `redirector status`

use super::{
    connection::ConnectionArgs,
    list,
    output::{OutputArgs, block_on, table},
};
use crate::api::{InterceptCounts, InterceptInfo, PortCounts, RequestCounts, Status, TargetStatus};
use anyhow::Result;
use clap::Args;
use http::Method;
use jiff::{Timestamp, tz::TimeZone};
use std::{fmt::Write as _, process::ExitCode};

/// Show what an agent does: what is attached where, and what it has counted
///
/// For each port: connections, requests by protocol, and connections whose requests are not seen, with what to do about
/// it, all since the agent started. For each intercept: its tunnel, and what came of its requests.
#[derive(Args, Debug)]
pub struct StatusCommand {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl StatusCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let status: Status = block_on(async { Ok(agent.call(Method::GET, "/v1/status").await?) })?;
        self.output.print(&status, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(status: &Status) -> String {
    let mut text = format!("redirector {}, up for {} s\n", status.version, status.uptime);
    match &status.client_address_reason {
        None => text.push_str("apps see the client's address\n"),
        Some(reason) => {
            let _ = writeln!(text, "apps see the agent's address in place of the client's: {reason}");
        }
    }
    for target in &status.targets {
        text.push_str(&target_text(target));
    }
    for intercept in &status.intercepts {
        let (datapath, reason) = (intercept.datapath, &intercept.datapath_reason);
        let _ = writeln!(text, "{}: datapath {datapath}, {reason}", intercept.name);
    }
    text.push('\n');
    text.push_str(&intercepts_text(&status.intercepts));
    text
}

fn target_text(target: &TargetStatus) -> String {
    let attached: Vec<String> =
        target.attached.iter().map(|(interface, kind)| format!("{interface} ({kind})")).collect();
    let mut text = format!("\n{}: attached to {}\n", target.target, attached.join(", "));
    for (port, counts) in &target.ports {
        text.push_str(&port_text(*port, counts));
    }
    for (port, unseen) in &target.unseen {
        for (reason, count) in &unseen.counts {
            let _ = writeln!(
                text,
                "  port {port}: {count} open connections not covered: {}",
                reason.explanation()
            );
        }
    }
    for (port, counts) in target.ports.iter().filter(|(_, counts)| counts.parked + counts.given_back > 0) {
        let _ = writeln!(
            text,
            "  port {port}: {} connections changed from the app to the agent ({} for a request that did not match, {} \
             ended when idle), {} stayed in doubt",
            counts.parked, counts.falsely_parked, counts.retired, counts.given_back
        );
    }
    let packets: Vec<String> = target
        .packets
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(outcome, count)| format!("{outcome} {count}"))
        .collect();
    if !packets.is_empty() {
        let _ = writeln!(text, "  packets: {}", packets.join(", "));
    }
    text
}

fn port_text(port: u16, counts: &PortCounts) -> String {
    let doors: Vec<String> =
        counts.connections.iter().map(|(door, count)| format!("{count} by {}", door.as_str())).collect();
    let mut text = format!("  port {port}: connections: {}, {} open now\n", doors.join(", "), counts.open);
    for (protocol, requests) in counts.requests.iter().filter(|(_, requests)| requests.seen > 0) {
        let RequestCounts { seen, live, matched, answered, away, failed } = requests;
        let _ = writeln!(
            text,
            "    {protocol}: {seen} requests, {live} of them to the app; {matched} matched: {answered} answered, \
             {away} while away, {failed} failed"
        );
    }
    for (reason, count) in counts.uncovered.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "    {count} connections not covered: {}", reason.explanation());
    }
    text
}

/// A table of intercepts with what came of their requests, or a sentence where there are none.
fn intercepts_text(intercepts: &[InterceptInfo]) -> String {
    if intercepts.is_empty() {
        return list::NOTHING.to_owned();
    }
    let rows = intercepts.iter().map(|intercept| {
        let InterceptCounts { matched, answered, away, failed } = intercept.counts;
        let tunnel = list::tunnel(intercept);
        [
            intercept.name.clone(),
            intercept.target.to_string(),
            intercept.port.to_string(),
            intercept.owner.clone(),
            format!("{tunnel} since {}", local_time(&intercept.tunnel_since)),
            matched.to_string(),
            answered.to_string(),
            away.to_string(),
            failed.to_string(),
            intercept.matcher.to_string(),
        ]
    });
    table(
        ["NAME", "TARGET", "PORT", "OWNER", "TUNNEL", "MATCHED", "ANSWERED", "AWAY", "FAILED", "MATCHES"],
        rows,
    )
}

/// An RFC 3339 time on the clock of who reads it.
fn local_time(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{DoorKind, Uncovered},
        protocol::Protocol,
    };

    #[test]
    fn what_is_not_covered_comes_with_what_to_do() {
        let requests = RequestCounts { seen: 9, live: 7, matched: 3, answered: 1, away: 1, failed: 1 };
        let counts = PortCounts {
            connections: [(DoorKind::Assign, 12)].into(),
            open: 2,
            requests: [(Protocol::Http1, requests), (Protocol::Http2, RequestCounts::default())].into(),
            uncovered: [(Uncovered::Tls, 4), (Uncovered::NotHttp, 0)].into(),
            ..PortCounts::default()
        };
        assert_eq!(
            port_text(8080, &counts),
            "  port 8080: connections: 12 by assign, 2 open now\n    http/1.1: 9 requests, 7 of them to the app; 3 \
             matched: 1 answered, 1 while away, 1 failed\n    4 connections not covered: TLS, and there is no key \
             for it: give `redirector intercept` the app's certificate with --tls-cert and --tls-key\n"
        );
    }
}
