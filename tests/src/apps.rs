//! Apps of the lab: real servers as their users run them, and the one that reports what it was sent.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    agent::CommandOutput,
    lab::{Host, Lab},
    log::Log,
    netns::Netns,
    process::Process,
    tls::{Certificate, Kind},
    wait::eventually,
};

mod grpc;
mod http2;
mod pool;
mod software;

pub use grpc::grpc_client;
pub use http2::{Http2Answers, http2_client, http2_raw};
pub use pool::PoolClient;
pub use software::Software;

const ECHO: &str = include_str!("apps/echo.py");
const TLS_ENDS: &str = include_str!("apps/tls_ends.py");

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

/// How a server of [`App::ends`] waits for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Node,
    Threads,
}

/// Whose HTTP client asks over one connection, on and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAliveClient {
    Python,
    Node,
}

impl KeepAliveClient {
    pub const BOTH: [Self; 2] = [Self::Python, Self::Node];

    /// Asks for `/whoami` in turns without and with the header. Prints the local port, `plain` or `matching`, and who
    /// answered.
    #[must_use]
    pub fn start(self, lab: &Lab, host: &Host, to: SocketAddr, name: &str, value: &str) -> Process {
        let mut command = match self {
            Self::Python => {
                let text = include_str!("apps/keep_alive_client.py");
                python(lab, &host.netns, "keep_alive_client.py", text)
            }
            Self::Node => {
                let text = include_str!("apps/keep_alive_client.js");
                node(lab, &host.netns, "keep_alive_client.js", text)
            }
        };
        command.arg(to.ip().to_string()).arg(to.port().to_string()).args([name, value]);
        Process::spawn("client", &mut command, lab.logs())
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

    /// The same in TLS.
    #[must_use]
    pub fn tls_echo(
        lab: &Lab,
        host: &Host,
        name: &str,
        ports: &[u16],
        certificate: &Certificate,
        options: &[&str],
    ) -> Self {
        let [file, key] = certificate.files();
        Self::echo_with(lab, host, name, ports, &[&["--tls", &file, &key], options].concat())
    }

    /// The same as [`App::echo_with`], with `root` as its root directory, which must have a copy of what the options
    /// name. Needs nothing there but the directory.
    #[must_use]
    pub fn echo_in_root(
        lab: &Lab,
        host: &Host,
        root: &Path,
        name: &str,
        ports: &[u16],
        options: &[&str],
    ) -> Self {
        fs::create_dir_all(root.join("usr")).expect("the mount point in the root");
        for directory in ["bin", "lib", "lib64"] {
            // Debian's layout: everything is in /usr.
            let _ = std::os::unix::fs::symlink(format!("usr/{directory}"), root.join(directory));
        }
        fs::write(root.join("echo.py"), ECHO).expect("the app in its root");
        // The mount is in a mount namespace of its own, and gone with it.
        let script = "mount -o bind,ro /usr \"$1/usr\" && root=$1 && shift && exec chroot \"$root\" \"$@\"";
        let mut command = host.netns.command("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(root);
        command.args([PYTHON, "-u", "/echo.py", name]).args(ports.iter().map(u16::to_string)).args(options);
        Self::ready(Process::spawn(name, &mut command, lab.logs()))
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

    /// `apps/ends.js` or `apps/ends.py`: Node's event loop or a thread with blocking reads for each connection. Prints
    /// how connections end.
    #[must_use]
    pub fn ends(lab: &Lab, host: &Host, how: Ends, port: u16) -> Self {
        let mut command = match how {
            Ends::Node => node(lab, &host.netns, "ends.js", include_str!("apps/ends.js")),
            Ends::Threads => python(lab, &host.netns, "ends.py", include_str!("apps/ends.py")),
        };
        Self::ready(Process::spawn("app", command.arg(port.to_string()), lab.logs()))
    }

    /// gunicorn: two processes with threads, all of which accept.
    #[must_use]
    pub fn gunicorn(lab: &Lab, host: &Host, port: u16) -> Self {
        const APP: &str = "
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'application/json'), ('Content-Length', '21')])
    return [b'{\"served_by\": \"app\"}\\n'[:21]]
";
        let path = script(lab, "gunicorn_app.py", APP);
        let mut command = host.netns.command("gunicorn");
        command.args(["--workers", "2", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "75"]);
        command.args(["--log-level", "debug", "--bind", &format!("0.0.0.0:{port}"), "--chdir"]);
        command.arg(path.parent().unwrap_or(Path::new("/"))).arg("gunicorn_app:app");
        Self::listening(Process::spawn("app", &mut command, lab.logs()), host, port)
    }

    /// Python's in TLS.
    #[must_use]
    pub fn tls_websocket(lab: &Lab, host: &Host, name: &str, port: u16, certificate: &Certificate) -> Self {
        let mut command = WebSockets::Python.server(lab, &host.netns);
        command.arg(name).args(certificate.files()).arg(port.to_string());
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

    pub(crate) fn ready(mut process: Process) -> Self {
        process.wait_for_line("ready");
        Self { process }
    }

    fn listening(process: Process, host: &Host, port: u16) -> Self {
        wait_for_port(host, port);
        Self { process }
    }
}

/// `apps/tls_ends.py`, the server: tells in a line how each of its clients ended TLS.
#[must_use]
pub fn tls_ends_server(lab: &Lab, host: &Host, port: u16, certificate: &Certificate) -> App {
    let mut command = python(lab, &host.netns, "tls_ends.py", TLS_ENDS);
    command.args(["serve", &port.to_string()]).args(certificate.files());
    App::ready(Process::spawn("tls ends", &mut command, lab.logs()))
}

/// `apps/tls_ends.py`, the client: says `text`, ends as it is told (`clean`, `ragged`, `not`), and gives in JSON what
/// came back and how that ended.
#[must_use]
pub fn tls_ends_client(lab: &Lab, host: &Host, to: SocketAddr, text: &str, end: &str) -> Value {
    let mut command = python(lab, &host.netns, "tls_ends.py", TLS_ENDS);
    command.args(["ask", &to.ip().to_string(), &to.port().to_string(), text, end]);
    let output = CommandOutput::of(&mut command);
    assert_eq!(output.code, Some(0), "{output:?}");
    output.json()
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
        Self::start_with(lab, host, ports, "", &[""])
    }

    /// The same, with parameters of its `listen` directives.
    #[must_use]
    pub fn listening(lab: &Lab, host: &Host, ports: &[u16], parameters: &str) -> Self {
        Self::start_with(lab, host, ports, parameters, &[""])
    }

    /// The same with TLS; see [`Nginx::certificate`].
    #[must_use]
    pub fn tls(lab: &Lab, host: &Host, ports: &[u16]) -> Self {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let mut nginx = Self::tls_with(lab, host, ports, &[(&certificate, "")]);
        certificate.path().clone_into(&mut nginx.certificate);
        nginx
    }

    /// The same with a server for each certificate, chosen by the name that the client asks for, the first one for all
    /// others. Each with more lines of configuration.
    #[must_use]
    pub fn tls_with(lab: &Lab, host: &Host, ports: &[u16], servers: &[(&Certificate, &str)]) -> Self {
        let servers: Vec<String> = servers
            .iter()
            .map(|(certificate, more)| {
                let [file, key] = certificate.files();
                let name = certificate.name();
                format!("server_name {name}; ssl_certificate {file}; ssl_certificate_key {key}; {more}")
            })
            .collect();
        let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
        Self::start_with(lab, host, ports, "ssl", &servers)
    }

    /// The same with HTTP/2 in TLS, if the client can.
    #[must_use]
    pub fn tls_http2(lab: &Lab, host: &Host, ports: &[u16], certificate: &Certificate) -> Self {
        let [file, key] = certificate.files();
        let lines =
            format!("ssl_certificate {file}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;");
        Self::start_with(lab, host, ports, "ssl http2", &[&lines])
    }

    /// The same with HTTP/2 by prior knowledge.
    #[must_use]
    pub fn http2(lab: &Lab, host: &Host, ports: &[u16]) -> Self {
        Self::http2_with(lab, host, ports, "")
    }

    /// The same, with more directives for its `server`.
    #[must_use]
    pub fn http2_with(lab: &Lab, host: &Host, ports: &[u16], directives: &str) -> Self {
        Self::start_with(lab, host, ports, "http2", &[directives])
    }

    /// With directives for its `server`.
    #[must_use]
    pub fn with(lab: &Lab, host: &Host, ports: &[u16], directives: &str) -> Self {
        Self::start_with(lab, host, ports, "", &[directives])
    }

    /// An ingress: passes all requests to `to`, with the `Host` that it was told and WebSockets.
    #[must_use]
    pub fn ingress(lab: &Lab, host: &Host, port: u16, to: SocketAddr) -> Self {
        Self::start_with(lab, host, &[port], "", &[&passes_to(to)])
    }

    /// The same in TLS, for the first name in the certificate.
    #[must_use]
    pub fn tls_ingress(lab: &Lab, host: &Host, port: u16, to: SocketAddr, certificate: &Certificate) -> Self {
        Self::tls_with(lab, host, &[port], &[(certificate, &passes_to(to))])
    }

    /// Fewer than the 128 of a default, so that it takes no crowd to come to it.
    pub const HTTP2_STREAMS: usize = 16;

    /// The same in TLS, with HTTP/2 if the client can, and the gRPC of the lab to `grpc`. A connection takes
    /// [`Self::HTTP2_STREAMS`] at a time.
    #[must_use]
    pub fn http2_ingress(
        lab: &Lab,
        host: &Host,
        port: u16,
        [to, grpc]: [SocketAddr; 2],
        certificate: Option<&Certificate>,
    ) -> Self {
        let tls = certificate.map_or_else(String::new, |certificate| {
            let [file, key] = certificate.files();
            format!("ssl_certificate {file}; ssl_certificate_key {key};")
        });
        let server = format!(
            "{tls} http2_max_concurrent_streams {}; {}
             location ~ ^/(lab|grpc)[.] {{ grpc_pass grpc://{grpc}; client_max_body_size 0; }}",
            Self::HTTP2_STREAMS,
            passes_to(to)
        );
        let listen = if certificate.is_some() { "ssl http2" } else { "http2" };
        Self::start_with(lab, host, &[port], listen, &[&server])
    }

    fn start_with(lab: &Lab, host: &Host, ports: &[u16], listen: &str, servers: &[&str]) -> Self {
        let directory =
            tempfile::Builder::new().prefix("nginx-").tempdir_in(lab.directory()).expect("a directory");
        let directory = directory.keep();
        let root = directory.join("root");
        fs::create_dir(&root).expect("the document root");
        fs::write(root.join("who"), format!("nginx in {}\n", host.netns.name())).expect("a file to serve");
        let config = directory.join("nginx.conf");
        fs::write(&config, nginx_config(&directory, ports, listen, servers)).expect("nginx.conf");

        let mut command = host.netns.command("nginx");
        command.arg("-c").arg(&config).arg("-p").arg(&directory).args(["-e", "stderr"]);
        let process = Process::spawn("nginx", &mut command, lab.logs());
        for port in ports {
            wait_for_port(host, *port);
        }
        Self { process, root, certificate: PathBuf::new() }
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

fn passes_to(to: SocketAddr) -> String {
    format!(
        "location / {{ proxy_pass http://{to}; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
         client_max_body_size 0; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
         proxy_set_header Connection $http_connection; proxy_set_header X-Seen-Sni \"$ssl_server_name\"; }}"
    )
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
) -> CommandOutput {
    CommandOutput::of(by.client(lab, &host.netns).arg(url).args(headers))
}

fn python(lab: &Lab, netns: &Netns, name: &str, text: &str) -> Command {
    let mut command = netns.command(PYTHON);
    command.arg("-u").arg(script(lab, name, text));
    command
}

pub(crate) fn node(lab: &Lab, netns: &Netns, name: &str, text: &str) -> Command {
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

fn nginx_config(directory: &Path, ports: &[u16], listen: &str, servers: &[&str]) -> String {
    let directory = directory.display();
    let listens: String =
        ports.iter().map(|port| format!("listen {port} {listen}; listen [::]:{port} {listen};\n")).collect();
    let servers: String = servers
        .iter()
        .map(|lines| format!("server {{ {listens} {lines} root {directory}/root; }}\n"))
        .collect();
    format!(
        "daemon off; master_process off; pid {directory}/pid; error_log stderr;
         events {{ worker_connections 4096; }}
         http {{
           log_format lab 'client $remote_addr $status $request';
           access_log /dev/stdout lab;
           client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
           fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
           keepalive_requests 100000;
           {servers}
         }}"
    )
}
