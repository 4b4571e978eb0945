//! What the lab needs from the distribution.

/// A Debian package and why the lab needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    pub reason: &'static str,
}

/// The Debian 12 packages the lab needs. Install them without starting daemons (a `policy-rc.d` that says no):
/// nginx and Redis would otherwise listen on the machine itself.
pub const PACKAGES: &[Package] = &[
    Package {
        name: "apache2-bin",
        reason: "an app with a process for each connection, or with threads; not the service",
    },
    Package { name: "chromium", reason: "the browser of who opens a preview" },
    Package { name: "chromium-driver", reason: "chromedriver: opens pages, fills in forms, takes pictures" },
    Package { name: "curl", reason: "the client of most tests" },
    Package { name: "ethtool", reason: "packets of the size and with the checksums that a wire has" },
    Package { name: "fonts-dejavu-core", reason: "pictures of pages look the same everywhere" },
    Package { name: "gunicorn", reason: "an app with several processes that accept, nobody's but its own" },
    Package { name: "iproute2", reason: "ip, tc and ss: builds the lab, sees what is left in it" },
    Package { name: "iptables", reason: "a pod whose port a service mesh redirects" },
    Package { name: "nftables", reason: "nft: rules as a service mesh writes them" },
    Package { name: "nghttp2-client", reason: "h2load: many HTTP/2 requests at once" },
    Package { name: "nghttp2-proxy", reason: "nghttpx: an HTTP/2 proxy to compare conformance with" },
    Package { name: "nghttp2-server", reason: "nghttpd: an HTTP/2 server" },
    Package { name: "nginx", reason: "an app nobody modified; also TLS and HTTP/2" },
    Package { name: "node-ws", reason: "another WebSocket server and client nobody modified" },
    Package { name: "nodejs", reason: "an HTTP/2 server and client that show and do all that HTTP/2 has" },
    Package { name: "openjdk-17-jdk-headless", reason: "a Java app, compiled when it starts" },
    Package { name: "openssl", reason: "certificates of TLS apps, and a TLS client nobody modified" },
    Package { name: "prometheus", reason: "promtool judges the metrics, Prometheus itself reads them" },
    Package { name: "python3", reason: "the HTTP app that reports what it was sent" },
    Package { name: "python3-aiosmtpd", reason: "an SMTP server: the server speaks first" },
    Package { name: "python3-h2", reason: "HTTP/2 requests that no proper client would send" },
    Package { name: "python3-hypercorn", reason: "a server that upgrades from HTTP/1.1 to HTTP/2" },
    Package { name: "python3-uvicorn", reason: "an asynchronous Python app" },
    Package { name: "python3-venv", reason: "for the gRPC library, of which Debian lacks parts" },
    Package { name: "python3-websockets", reason: "a WebSocket server and client nobody modified" },
    Package { name: "redis-server", reason: "a binary protocol in which the client speaks first" },
    Package { name: "tcpdump", reason: "what is on the wire" },
    Package { name: "util-linux", reason: "nsenter, setpriv and prlimit" },
];
