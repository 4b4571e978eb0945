//! Configurations of the app and of the proxies: what their manuals advise for speed.

use std::{net::SocketAddr, path::Path};

pub const APP_PORT: u16 = 8080;
pub const NGINX_PORT: u16 = 8090;
pub const HAPROXY_PORT: u16 = 8091;

pub const SMALL_PATH: &str = "/small";
pub const LARGE_PATH: &str = "/large";
/// What the app says at [`SMALL_PATH`].
pub const SMALL_BODY: &str = "{\"order\":4711,\"state\":\"paid\",\"items\":[{\"sku\":\"A-17\",\"count\":2},{\"sku\":\"B-4\",\"count\":1}]}";
/// Bytes of zero it says at [`LARGE_PATH`].
pub const LARGE_LENGTH: usize = 1024 * 1024;

/// Where the app tells the context that it was sent, as [`INJECTED`].
pub const CONTEXT_PATH: &str = "/context";

/// The key of the preview that gateways put in.
pub const KEY: &str = "benchbenchbenchb";
const MEMBER: &str = "redirector=benchbenchbenchb";
/// The header, baggage and trace state that a request without any has behind a gateway.
pub const INJECTED: &str = "benchbenchbenchb|redirector=benchbenchbenchb|redirector=benchbenchbenchb";

/// The app, or the developer's copy of it. Its document root is `directory`.
pub fn app(directory: &Path, cores: usize, port: u16) -> String {
    let server = format!(
        "server {{
           listen {port} backlog=4096;
           location = {SMALL_PATH} {{ default_type application/json; return 200 '{SMALL_BODY}'; }}
           location = {LARGE_PATH} {{ root {}; }}
           location = {CONTEXT_PATH} {{
             return 200 '$http_x_redirector_intercept|$http_baggage|$http_tracestate';
           }}
         }}",
        directory.display()
    );
    nginx(directory, cores, &server)
}

/// nginx as a proxy in front of `app`, with connections to it kept alive and nothing written to disk. `more` are directives
/// of its location.
pub fn nginx_proxy(directory: &Path, cores: usize, app: SocketAddr, more: &str) -> String {
    let server = format!(
        "upstream app {{
           server {app};
           keepalive 512; keepalive_requests 1000000000;
         }}
         server {{
           listen {NGINX_PORT} backlog=4096;
           location / {{
             proxy_pass http://app;
             proxy_http_version 1.1;
             proxy_set_header Connection '';
             proxy_set_header Host $http_host;
             proxy_buffers 8 64k;
             proxy_max_temp_file_size 0;
             {more}
           }}
         }}"
    );
    nginx(directory, cores, &server)
}

/// HAProxy, likewise. `more` are rules of its frontend.
pub fn haproxy(cores: usize, app: SocketAddr, more: &str) -> String {
    format!(
        "global
           nbthread {cores}
           maxconn 8192
         defaults
           mode http
           timeout connect 5s
           timeout client 60s
           timeout server 60s
           http-reuse always
         frontend clients
           bind :{HAPROXY_PORT} backlog 4096
           {more}
           default_backend app
         backend app
           server app {app}
"
    )
}

/// What has nginx do a gateway's work, as far as it can: it does not know what the parts of baggage and trace state are.
pub fn nginx_injection() -> String {
    format!(
        "proxy_set_header x-redirector-intercept {KEY};
         proxy_set_header baggage ${{baggage_before}}{MEMBER};
         proxy_set_header tracestate {MEMBER}$trace_state_behind;
         proxy_set_header X-Forwarded-For $remote_addr;
         proxy_set_header X-Forwarded-Host $http_host;
         proxy_set_header X-Forwarded-Proto $scheme;
         proxy_set_header X-Forwarded-Port $server_port;"
    )
}

pub fn haproxy_injection() -> String {
    format!(
        "http-request set-header x-redirector-intercept {KEY}
           http-request set-header baggage %[req.fhdr(baggage)],{MEMBER} if {{ req.fhdr(baggage) -m found }}
           http-request set-header baggage {MEMBER} if !{{ req.fhdr(baggage) -m found }}
           http-request set-header tracestate {MEMBER},%[req.fhdr(tracestate)] if {{ req.fhdr(tracestate) -m found }}
           http-request set-header tracestate {MEMBER} if !{{ req.fhdr(tracestate) -m found }}
           http-request set-header X-Forwarded-For %[src]
           http-request set-header X-Forwarded-Host %[req.hdr(host)]
           http-request set-header X-Forwarded-Proto http
           http-request set-header X-Forwarded-Port %[dst_port]"
    )
}

fn nginx(directory: &Path, cores: usize, servers: &str) -> String {
    let directory = directory.display();
    // Workers as root: the lab's directory is closed to others.
    format!(
        "daemon off; user root; worker_processes {cores}; pid {directory}/pid; error_log stderr;
         events {{ worker_connections 4096; }}
         http {{
           access_log off;
           sendfile on; tcp_nopush on; tcp_nodelay on;
           keepalive_requests 1000000000;
           client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
           fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
           map $http_baggage $baggage_before {{ '' ''; default '$http_baggage,'; }}
           map $http_tracestate $trace_state_behind {{ '' ''; default ',$http_tracestate'; }}
           {servers}
         }}"
    )
}
