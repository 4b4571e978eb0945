//! Reading netfilter rules that the real tools made in real namespaces. Needs root, `iptables` and `nftables`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use redirector::redirect_rules::{Certainty, RedirectFinding, redirect_of};
use redirector::target::netns::Netns;

/// A network namespace, removed at the end.
struct Pod {
    name: String,
    netns: Netns,
}

impl Pod {
    fn new(purpose: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let name = format!("rdr{}{purpose}", std::process::id());
        let status = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(status.success(), "ip netns add {name}");
        let netns = Netns::open(&Path::new("/run/netns").join(&name)).unwrap();
        Self { name, netns }
    }

    /// Runs a tool inside, once per line of arguments.
    fn run(&self, tool: &str, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.name, tool]).args(line.split(' '));
            let status = command.status().unwrap();
            assert!(status.success(), "{tool} {line}: {status} (are iptables and nftables installed?)");
        }
    }

    fn nft(&self, ruleset: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "nft", "-f", "-"]).stdin(Stdio::piped());
        let mut nft = command.spawn().unwrap();
        nft.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft -f - (is nftables installed?)\n{ruleset}");
    }

    fn finding(&self, port: u16) -> Option<RedirectFinding> {
        self.netns.run_inside(|| redirect_of(port).unwrap()).unwrap()
    }

    fn certainty(&self, port: u16) -> Option<Certainty> {
        self.finding(port).map(|finding| finding.certainty)
    }

    fn net_file(&self, name: &str) -> String {
        let path = format!("/proc/thread-self/net/{name}");
        self.netns.run_inside(|| fs::read_to_string(path).unwrap_or_default()).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// What Istio's init container sets up, in short.
const ISTIO: &str = "
    -t nat -N ISTIO_INBOUND
    -t nat -N ISTIO_IN_REDIRECT
    -t nat -N ISTIO_OUTPUT
    -t nat -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
    -t nat -A PREROUTING -p tcp -j ISTIO_INBOUND
    -t nat -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
    -t nat -A ISTIO_INBOUND -p tcp -m multiport --dports 22,15020:15021 -j RETURN
    -t nat -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
    -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT
    -t nat -A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 15001";

fn assert_istio_is_found(pod: &Pod, table: &str) {
    let finding = pod.finding(8080).unwrap();
    assert_eq!(finding.table, table);
    assert_eq!(finding.chain, "ISTIO_IN_REDIRECT");
    assert_eq!(finding.rule, "tcp REDIRECT to port 15006");
    assert_eq!(finding.certainty, Certainty::Redirects);
    for excluded in [22, 15008, 15020, 15021] {
        assert_eq!(pod.finding(excluded), None, "{excluded}");
    }
}

#[test]
fn a_clean_namespace_redirects_nothing_and_stays_clean() {
    let pod = Pod::new("clean");
    assert_eq!(pod.finding(8080), None);
    assert_eq!(pod.net_file("ip_tables_names"), "");
    assert_eq!(pod.net_file("ip6_tables_names"), "");
}

#[test]
fn istios_rules_made_by_iptables_nft_are_found() {
    let pod = Pod::new("nft4");
    pod.run("iptables-nft", ISTIO);
    assert_istio_is_found(&pod, "ip nat");
}

#[test]
fn istios_rules_made_by_ip6tables_nft_are_found() {
    let pod = Pod::new("nft6");
    pod.run("ip6tables-nft", ISTIO);
    assert_istio_is_found(&pod, "ip6 nat");
}

#[test]
fn istios_rules_made_by_iptables_legacy_are_found() {
    let pod = Pod::new("leg4");
    pod.run("iptables-legacy", ISTIO);
    assert_istio_is_found(&pod, "ip nat (iptables-legacy)");
}

#[test]
fn istios_rules_made_by_ip6tables_legacy_are_found() {
    let pod = Pod::new("leg6");
    pod.run("ip6tables-legacy", ISTIO);
    assert_istio_is_found(&pod, "ip6 nat (iptables-legacy)");
}

#[test]
fn tproxy_and_dnat_are_found_with_either_iptables() {
    for (tool, purpose) in [("iptables-nft", "tpn"), ("iptables-legacy", "tpl")] {
        let pod = Pod::new(purpose);
        pod.run(
            tool,
            "-t mangle -A PREROUTING -i lo -j RETURN
             -t mangle -A PREROUTING -p tcp ! --dport 22 -j TPROXY --on-port 15006 --tproxy-mark 1
             -t nat -A PREROUTING -i lo -p tcp --dport 22 -j REDIRECT --to-ports 1
             -t nat -A PREROUTING -p udp --dport 22 -j REDIRECT --to-ports 1",
        );
        assert_eq!(pod.finding(8080).unwrap().rule, "tcp not dport 22 TPROXY to port 15006", "{tool}");
        assert_eq!(pod.finding(22), None, "{tool}");
        pod.run(tool, "-t nat -A PREROUTING -p tcp --dport 20:30 -j DNAT --to-destination 10.0.0.1:99");
        assert_eq!(pod.finding(22).unwrap().rule, "tcp dport 20-30 DNAT to port 99", "{tool}");
        pod.run(tool, "-t nat -I PREROUTING -p tcp -d 10.9.9.9 -j ACCEPT");
        assert_eq!(pod.certainty(22), Some(Certainty::MayRedirect), "{tool}");
        pod.run(tool, "-t nat -I PREROUTING -p tcp --dport 22 -j ACCEPT");
        assert_eq!(pod.finding(22), None, "{tool}");
    }
}

#[test]
fn goto_and_chains_without_a_redirect_are_followed_with_either_iptables() {
    for (tool, purpose) in [("iptables-nft", "gon"), ("iptables-legacy", "gol")] {
        let pod = Pod::new(purpose);
        pod.run(
            tool,
            "-t nat -N EMPTY
             -t nat -N LAST
             -t nat -A PREROUTING -p tcp
             -t nat -A PREROUTING -j EMPTY
             -t nat -A PREROUTING -p tcp --dport 80 -g LAST
             -t nat -A PREROUTING -p tcp -j REDIRECT --to-ports 1",
        );
        assert_eq!(pod.finding(80), None, "{tool}");
        assert_eq!(pod.finding(81).unwrap().rule, "tcp REDIRECT to port 1", "{tool}");
    }
}

#[test]
fn native_nft_rules_are_found() {
    let pod = Pod::new("native");
    pod.nft(
        "table inet mesh {
            set excluded { type inet_service; flags interval; elements = { 22, 9000-9099 } }
            chain inbound { tcp dport { 15008, 15020 } return; meta l4proto tcp redirect to :15006; }
            chain web { meta l4proto tcp redirect to :3000; }
            chain prerouting {
                type nat hook prerouting priority dstnat;
                iif lo return
                meta l4proto != tcp return
                tcp dport @excluded return
                tcp dport vmap { 80 : jump web, 1000-1999 : accept, 2000-2999 : jump web, 60000-65535 : accept }
                tcp dport 5000-5999 return
                tcp dport < 20 return
                ip saddr 10.0.0.0/8 tcp dport 7000 dnat ip to 10.1.1.1:70
                tcp dport 7000 return
                tcp dport >= 8000 jump inbound
            }
        }
        table bridge other {
            chain prerouting { type filter hook prerouting priority 0; }
        }",
    );
    let rule = |port| pod.finding(port).map(|finding| (finding.table, finding.chain, finding.rule));
    let found = |chain: &str, rule: &str| Some(("inet mesh".to_owned(), chain.to_owned(), rule.to_owned()));
    assert_eq!(rule(8080), found("inbound", "tcp redirect to port 15006"));
    assert_eq!(rule(80), found("web", "tcp redirect to port 3000"));
    assert_eq!(pod.certainty(8080), Some(Certainty::Redirects));
    assert_eq!(pod.certainty(7000), Some(Certainty::MayRedirect));
    for port in [1, 22, 9000, 9099, 1000, 1999, 5000, 5999, 7001, 15008, 15020] {
        assert_eq!(pod.finding(port), None, "{port}");
    }
    assert!(pod.finding(9100).is_some());
    assert_eq!(rule(2000), found("web", "tcp redirect to port 3000"), "adjacent intervals of a map");
    assert_eq!(rule(2999), rule(2000));
    assert_eq!(rule(59999), rule(8080));
    assert_eq!(rule(60000), None);
    assert_eq!(rule(65535), None);
}

#[test]
fn native_tproxy_and_maps_are_found() {
    let pod = Pod::new("maps");
    pod.nft(
        "table inet mesh {
            chain divert {
                type filter hook prerouting priority mangle;
                meta nfproto ipv6 tcp dport 443 tproxy ip6 to :15443
            }
            chain prerouting {
                type nat hook prerouting priority dstnat;
                meta l4proto tcp redirect to :tcp dport map { 8443 : 443 }
                tcp dport . ip saddr { 99 . 10.0.0.1 } redirect to :1
            }
        }",
    );
    assert_eq!(pod.finding(443).unwrap().rule, "ipv6 tcp dport 443 tproxy to port 15443");
    assert_eq!(pod.certainty(443), Some(Certainty::Redirects));
    assert_eq!(pod.certainty(8443), Some(Certainty::Redirects));
    assert_eq!(pod.certainty(99), Some(Certainty::MayRedirect), "a key of several fields cannot be judged");
}

#[test]
fn thousands_of_rules_are_read() {
    let pod = Pod::new("many");
    let sources: String =
        (0..20_000).map(|n| format!("ip saddr 10.0.{}.{} return\n", n / 256, n % 256)).collect();
    pod.nft(&format!(
        "table ip many {{ chain prerouting {{ type nat hook prerouting priority dstnat;\n{sources} tcp dport 80 redirect to :81\n}}\n}}\n"
    ));
    assert_eq!(pod.certainty(80), Some(Certainty::MayRedirect));
    assert_eq!(pod.finding(81), None);
}
