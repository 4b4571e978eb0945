//! Configurations of the app and of the proxies: what their manuals advise for speed.

use std::path::Path;

pub const APP_PORT: u16 = 8080;
pub const NGINX_PORT: u16 = 8090;
pub const HAPROXY_PORT: u16 = 8091;

pub const SMALL_PATH: &str = "/small";
pub const LARGE_PATH: &str = "/large";
/// What the app says at [`SMALL_PATH`].
pub const SMALL_BODY: &str = "{\"order\":4711,\"state\":\"paid\",\"items\":[{\"sku\":\"A-17\",\"count\":2},{\"sku\":\"B-4\",\"count\":1}]}";
/// Bytes of zero it says at [`LARGE_PATH`].
pub const LARGE_LENGTH: usize = 1024 * 1024;

/// The app, or the developer's copy of it. Its document root is `directory`.
pub fn app(directory: &Path, cores: usize, port: u16) -> String {
    let server = format!(
        "server {{
           listen {port} backlog=4096;
           location = {SMALL_PATH} {{ default_type application/json; return 200 '{SMALL_BODY}'; }}
           location = {LARGE_PATH} {{ root {}; }}
         }}",
        directory.display()
    );
    nginx(directory, cores, &server)
}

/// nginx as a proxy in front of the app, with connections to it kept alive and nothing written to disk.
pub fn nginx_proxy(directory: &Path, cores: usize) -> String {
    let server = format!(
        "upstream app {{
           server 127.0.0.1:{APP_PORT};
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
           }}
         }}"
    );
    nginx(directory, cores, &server)
}

pub fn haproxy(cores: usize) -> String {
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
           default_backend app
         backend app
           server app 127.0.0.1:{APP_PORT}
"
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
           {servers}
         }}"
    )
}
