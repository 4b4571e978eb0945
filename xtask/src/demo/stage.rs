//! The two servers that nobody modified: nginx in the pod, Python's own on the developer's machine.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use lab::{Lab, Nginx, Process};

/// Where nginx listens, the port that is intercepted.
pub const PORT: u16 = 8080;
/// Where the developer's server listens.
pub const LOCAL: u16 = 3000;

/// What they answer.
pub const NGINX: &str = "nginx in the pod";
pub const DEVELOPER: &str = "the developer";

/// The distribution's Python, whatever else is in `$PATH`.
const PYTHON: &str = "/usr/bin/python3";

/// Serves the files of the directory it is started in. Not `python3 -m http.server`, which speaks HTTP/1.0: that would
/// end the client's connection with each of its answers.
const SERVER: &str = r#"
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
import sys
SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler)
print("ready")
server.serve_forever()
"#;

/// The machines, and what runs on them.
pub fn picture(lab: &Lab) -> String {
    let (node, pod, client, dev) = (lab.node.v4, lab.pod.v4, lab.client.v4, lab.dev.v4);
    format!(
        "
   client {client}            pod {pod}
   curl ───────────────┬─────────► nginx on port {PORT}, unmodified
                       │
          x-dev: alice │           dev {dev}
                       └─────────► python3 on 127.0.0.1:{LOCAL}, and `redirector intercept`

   Each machine is a network namespace. `redirector agent` runs on the node, {node}, and sends
   the requests with the header `x-dev: alice` through a tunnel to the developer's machine."
    )
}

pub fn start_nginx(lab: &Lab) -> Result<Nginx> {
    let nginx = Nginx::start(lab, &lab.pod, &[PORT]);
    write_answer(nginx.root(), NGINX)?;
    Ok(nginx)
}

/// Starts it and waits until it listens.
pub fn start_local_server(lab: &Lab) -> Result<Process> {
    let root = lab.directory().join("developer");
    fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
    write_answer(&root, DEVELOPER)?;
    let mut command = lab.dev.netns.command(PYTHON);
    command.args(["-u", "-c", SERVER, &LOCAL.to_string()]).current_dir(root);
    let mut server = Process::spawn("python", &mut command, lab.logs());
    server.wait_for_line("ready");
    Ok(server)
}

fn write_answer(root: &Path, answer: &str) -> Result<()> {
    let path = root.join("index.html");
    fs::write(&path, format!("{answer}\n")).with_context(|| format!("cannot write {}", path.display()))
}
