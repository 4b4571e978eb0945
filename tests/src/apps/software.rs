//! The servers that people run, each with the same small app: it answers a request for `/answer?NUMBER` with the header
//! `X-Answer: NAME NUMBER`. Nobody modified the servers; what is configured is that they keep connections for long.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{App, PYTHON, node, script};
use crate::{
    lab::{Family, Host, Lab},
    log::Stream,
    process::Process,
    tools,
};

/// The software of a server, with how it waits for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Two processes that accept, an event loop in each.
    Nginx,
    /// One event loop.
    Node,
    /// Two processes with threads, all of which accept.
    Gunicorn,
    /// One event loop, with h11.
    Uvicorn,
    /// `com.sun.net.httpserver`: a selector, and threads that read and write blockingly.
    Java,
    /// `net/http`: a goroutine for each connection. Also sends back the body of the request.
    Go,
    /// A process for each connection, started ahead.
    ApachePrefork,
    /// Processes with threads, and one in each that waits for all idle connections.
    ApacheEvent,
}

impl Software {
    pub const ALL: [Self; 8] = [
        Self::Nginx,
        Self::Node,
        Self::Gunicorn,
        Self::Uvicorn,
        Self::Java,
        Self::Go,
        Self::ApachePrefork,
        Self::ApacheEvent,
    ];

    /// Starts it on `host`, where it signs with `name`.
    #[must_use]
    pub fn start(self, lab: &Lab, host: &Host, name: &str, port: u16) -> App {
        let command = match self {
            Self::Nginx => nginx(lab, host, name, port),
            Self::Node => node(lab, &host.netns, "answering.js", include_str!("answering.js")),
            Self::Gunicorn => gunicorn(lab, host, port),
            Self::Uvicorn => uvicorn(lab, host, port),
            Self::Java => java(lab, host),
            Self::Go => host.netns.command(&tools::answering().to_string_lossy()),
            Self::ApachePrefork => apache(lab, host, name, port, "prefork", PREFORK),
            Self::ApacheEvent => apache(lab, host, name, port, "event", EVENT),
        };
        let mut command = command;
        command.env("APP_NAME", name);
        let says_ready = matches!(self, Self::Node | Self::Java | Self::Go);
        if says_ready {
            command.arg(name).arg(port.to_string());
        }
        let process = Process::spawn(name, &mut command, lab.logs());
        if says_ready { App::ready(process) } else { App::listening(process, host, port) }
    }

    /// The families in which it is started to listen.
    #[must_use]
    pub fn families(self) -> &'static [Family] {
        match self {
            Self::Uvicorn => &[Family::V4],
            _ => &Family::BOTH,
        }
    }

    /// What it wrote about errors.
    #[must_use]
    pub fn errors(self, app: &App) -> Vec<String> {
        // Log levels are set so that what is ordinary is not there; but Apache httpd says when it starts and ends.
        app.log().lines(Stream::Stderr).into_iter().filter(|line| !line.contains(":notice]")).collect()
    }
}

fn nginx(lab: &Lab, host: &Host, name: &str, port: u16) -> Command {
    let directory = directory(lab, "nginx");
    let at = directory.display();
    let config = format!(
        "daemon off; user root; worker_processes 2; pid {at}/pid; error_log stderr warn;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; keepalive_timeout 300s; keepalive_requests 2000000000;
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
           uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
           server {{
             listen {port}; listen [::]:{port};
             location / {{ add_header X-Answer \"{name} $args\"; return 200 \"nginx\\n\"; }}
           }}
         }}"
    );
    let mut command = host.netns.command("nginx");
    command.arg("-c").arg(file(&directory, "nginx.conf", &config)).arg("-p").arg(&directory);
    command.args(["-e", "stderr"]);
    command
}

fn gunicorn(lab: &Lab, host: &Host, port: u16) -> Command {
    let app = script(lab, "answering_wsgi.py", include_str!("answering_wsgi.py"));
    let mut command = host.netns.command("gunicorn");
    command.args(["--workers", "2", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "300"]);
    command.args(["--log-level", "warning", "--bind", &format!("[::]:{port}"), "--chdir"]);
    command.arg(parent(&app)).arg("answering_wsgi:app");
    command
}

fn uvicorn(lab: &Lab, host: &Host, port: u16) -> Command {
    let app = script(lab, "answering_asgi.py", include_str!("answering_asgi.py"));
    let mut command = host.netns.command(PYTHON);
    command.args(["-m", "uvicorn", "--http", "h11", "--log-level", "warning", "--no-access-log"]);
    command.args(["--timeout-keep-alive", "300", "--host", "0.0.0.0", "--port", &port.to_string()]);
    command.arg("--app-dir").arg(parent(&app)).arg("answering_asgi:app");
    command
}

fn java(lab: &Lab, host: &Host) -> Command {
    let mut command = host.netns.command("java");
    // By default it closes idle connections when there are many.
    command.args(["-Dsun.net.httpserver.maxIdleConnections=10000", "-Dsun.net.httpserver.idleInterval=300"]);
    command.args(["-Dsun.net.httpserver.nodelay=true", "-Xshare:auto", "-XX:TieredStopAtLevel=1"]);
    command.arg(script(lab, "Answering.java", include_str!("Answering.java")));
    command
}

/// Many to begin with: it starts more only once a second, and its clients wait for that.
const PREFORK: &str = "StartServers 100
MinSpareServers 50
MaxSpareServers 200
ServerLimit 512
MaxRequestWorkers 512";
/// Many threads, because it ends idle connections when all of them are busy.
const EVENT: &str = "StartServers 2
ServerLimit 2
ThreadLimit 256
ThreadsPerChild 256
MaxRequestWorkers 512
MaxSpareThreads 512
AsyncRequestWorkerFactor 16";

fn apache(lab: &Lab, host: &Host, name: &str, port: u16, mpm: &str, processes: &str) -> Command {
    let directory = directory(lab, "apache");
    let at = directory.display();
    // It insists on serving as somebody else than root.
    for directory in [lab.directory(), &directory] {
        fs::set_permissions(directory, Permissions::from_mode(0o711)).expect("a directory that all can pass");
    }
    fs::create_dir(directory.join("root")).expect("the document root");
    fs::write(directory.join("root/answer"), "httpd\n").expect("a file to serve");
    let config = format!(
        "ServerRoot {at}
         ServerName pod.test
         PidFile {at}/pid
         Mutex file:{at}
         LoadModule mpm_{mpm}_module {MODULES}/mod_mpm_{mpm}.so
         LoadModule authz_core_module {MODULES}/mod_authz_core.so
         LoadModule headers_module {MODULES}/mod_headers.so
         {processes}
         Listen {port}
         User www-data
         Group www-data
         ErrorLog /dev/stderr
         LogLevel warn
         DocumentRoot {at}/root
         KeepAlive On
         KeepAliveTimeout 300
         MaxKeepAliveRequests 0
         Header set X-Answer \"expr={name} %{{QUERY_STRING}}\"\n"
    );
    let mut command = host.netns.command("apache2");
    command.args(["-D", "FOREGROUND", "-f"]).arg(file(&directory, "httpd.conf", &config));
    command
}

/// Where Debian has those of Apache httpd.
const MODULES: &str = "/usr/lib/apache2/modules";

fn directory(lab: &Lab, prefix: &str) -> PathBuf {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(lab.directory()).expect("a directory");
    directory.keep()
}

fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    path
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
