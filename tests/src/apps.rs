//! Apps of the lab: real servers as their users run them, and the one that reports what it was sent.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    lab::{Host, Lab},
    log::Log,
    netns::Netns,
    process::Process,
    wait::eventually,
};

mod grpc;
mod http2;

pub use grpc::grpc_client;
pub use http2::{Http2Answers, http2_client};

const ECHO: &str = include_str!("apps/echo.py");

/// Whose WebSocket library: nobody here wrote either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSockets {
    /// Debian's python3-websockets.
    Python,
    /// Debian's node-ws.
    Node,
}

impl WebSockets {
    pub const BOTH: [Self; 2] = [Self::Python, Self::Node];

    fn server(self, lab: &Lab, netns: &Netns) -> Command {
        match self {
            Self::Python => {
                python(lab, netns, "websocket_server.py", include_str!("apps/websocket_server.py"))
            }
            Self::Node => node(lab, netns, "websocket_server.js", include_str!("apps/websocket_server.js")),
        }
    }

    fn client(self, lab: &Lab, netns: &Netns) -> Command {
        match self {
            Self::Python => {
                python(lab, netns, "websocket_client.py", include_str!("apps/websocket_client.py"))
            }
            Self::Node => node(lab, netns, "websocket_client.js", include_str!("apps/websocket_client.js")),
        }
    }
}

/// The distribution's Python, which has the distribution's packages.
const PYTHON: &str = "/usr/bin/python3";

/// A server in the lab. Dropping it kills it.
#[derive(Debug)]
pub struct App {
    process: Process,
}

impl App {
    /// `apps/echo.py`: an HTTP/1.1 server that reports in JSON what it was sent, and signs with `name`.
    #[must_use]
    pub fn echo(lab: &Lab, host: &Host, name: &str, ports: &[u16]) -> Self {
        Self::echo_with(lab, host, name, ports, &[])
    }

    /// The same, with options of `echo.py`.
    #[must_use]
    pub fn echo_with(lab: &Lab, host: &Host, name: &str, ports: &[u16], options: &[&str]) -> Self {
        let mut command = python(lab, &host.netns, "echo.py", ECHO);
        command.arg(name).args(ports.iter().map(u16::to_string)).args(options);
        Self::ready(Process::spawn(name, &mut command, lab.logs()))
    }

    /// A WebSocket server that sends back each message, text after `name: `.
    #[must_use]
    pub fn websocket(lab: &Lab, host: &Host, by: WebSockets, name: &str, ports: &[u16]) -> Self {
        let mut command = by.server(lab, &host.netns);
        command.arg(name).args(ports.iter().map(u16::to_string));
        Self::ready(Process::spawn(name, &mut command, lab.logs()))
    }

    /// An SMTP server: it greets before the client says anything.
    #[must_use]
    pub fn smtp(lab: &Lab, host: &Host, port: u16) -> Self {
        let mut command = host.netns.command(PYTHON);
        let address = format!("{}:{port}", host.v4);
        command.args(["-m", "aiosmtpd", "-n", "-l", &address, "-c", "aiosmtpd.handlers.Sink"]);
        Self::listening(Process::spawn("smtp", &mut command, lab.logs()), host, port)
    }

    /// Redis, which speaks a protocol of its own.
    #[must_use]
    pub fn redis(lab: &Lab, host: &Host, port: u16) -> Self {
        let mut command = host.netns.command("redis-server");
        command.args(["--port", &port.to_string(), "--protected-mode", "no", "--save", "", "--dir"]);
        command.arg(lab.directory());
        Self::listening(Process::spawn("redis", &mut command, lab.logs()), host, port)
    }

    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    fn ready(mut process: Process) -> Self {
        process.wait_for_line("ready");
        Self { process }
    }

    fn listening(process: Process, host: &Host, port: u16) -> Self {
        wait_for_port(host, port);
        Self { process }
    }
}

/// An unmodified nginx with a configuration of its own.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    root: PathBuf,
    certificate: PathBuf,
}

impl Nginx {
    /// Serves [`Nginx::root`] on `ports`, IPv4 and IPv6, and logs `client ADDRESS STATUS REQUEST` to stdout.
    #[must_use]
    pub fn start(lab: &Lab, host: &Host, ports: &[u16]) -> Self {
        Self::start_with(lab, host, ports, "", "")
    }

    /// The same with TLS; see [`Nginx::certificate`].
    #[must_use]
    pub fn tls(lab: &Lab, host: &Host, ports: &[u16]) -> Self {
        Self::start_with(lab, host, ports, "ssl", "")
    }

    /// The same with HTTP/2 by prior knowledge.
    #[must_use]
    pub fn http2(lab: &Lab, host: &Host, ports: &[u16]) -> Self {
        Self::http2_with(lab, host, ports, "")
    }

    /// The same, with more directives for its `server`.
    #[must_use]
    pub fn http2_with(lab: &Lab, host: &Host, ports: &[u16], directives: &str) -> Self {
        Self::start_with(lab, host, ports, "http2", directives)
    }

    fn start_with(lab: &Lab, host: &Host, ports: &[u16], listen: &str, more: &str) -> Self {
        let directory =
            tempfile::Builder::new().prefix("nginx-").tempdir_in(lab.directory()).expect("a directory");
        let directory = directory.keep();
        let root = directory.join("root");
        fs::create_dir(&root).expect("the document root");
        fs::write(root.join("who"), format!("nginx in {}\n", host.netns.name())).expect("a file to serve");
        let certificate = directory.join("cert.pem");
        let tls = if listen == "ssl" { self_signed(&certificate) } else { more.to_owned() };
        let config = directory.join("nginx.conf");
        fs::write(&config, nginx_config(&directory, ports, listen, &tls)).expect("nginx.conf");

        let mut command = host.netns.command("nginx");
        command.arg("-c").arg(&config).arg("-p").arg(&directory).args(["-e", "stderr"]);
        let process = Process::spawn("nginx", &mut command, lab.logs());
        for port in ports {
            wait_for_port(host, *port);
        }
        Self { process, root, certificate }
    }

    /// What it serves; `who` says where it runs.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The self-signed certificate for `pod.test`.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }
}

/// Talks to a WebSocket server from `host`: sends texts, a large binary message and a ping, and gives in JSON what
/// came back. Headers are `name: value`.
#[must_use]
pub fn websocket_dialog(
    lab: &Lab,
    host: &Host,
    by: WebSockets,
    url: &str,
    headers: &[&str],
) -> crate::CommandOutput {
    crate::CommandOutput::of(by.client(lab, &host.netns).arg(url).args(headers))
}

fn python(lab: &Lab, netns: &Netns, name: &str, text: &str) -> Command {
    let mut command = netns.command(PYTHON);
    command.arg("-u").arg(script(lab, name, text));
    command
}

fn node(lab: &Lab, netns: &Netns, name: &str, text: &str) -> Command {
    let mut command = netns.command("node");
    // Where the distribution has its modules; a Node.js from elsewhere would not look there.
    command.env("NODE_PATH", "/usr/share/nodejs").arg(script(lab, name, text));
    command
}

fn script(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.directory().join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    path
}

fn wait_for_port(host: &Host, port: u16) {
    let address = host.at(port);
    eventually(&format!("somebody listens on {address} in {}", host.netns.name()), || {
        host.netns.run(|| TcpStream::connect(address)).is_ok()
    });
}

fn nginx_config(directory: &Path, ports: &[u16], listen: &str, tls: &str) -> String {
    let directory = directory.display();
    let listens: String =
        ports.iter().map(|port| format!("listen {port} {listen}; listen [::]:{port} {listen};\n")).collect();
    format!(
        "daemon off; master_process off; pid {directory}/pid; error_log stderr;
         events {{ worker_connections 4096; }}
         http {{
           log_format lab 'client $remote_addr $status $request';
           access_log /dev/stdout lab;
           client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
           fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
           keepalive_requests 100000;
           server {{ {listens} {tls} root {directory}/root; }}
         }}"
    )
}

/// Makes a certificate and its key; gives the lines of nginx that use them.
fn self_signed(certificate: &Path) -> String {
    let key = certificate.with_extension("key");
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "1", "-subj", "/CN=pod.test", "-addext", "subjectAltName=DNS:pod.test"]);
    let output = command.arg("-out").arg(certificate).arg("-keyout").arg(&key).output().expect("openssl");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display())
}
