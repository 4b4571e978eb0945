//! A real browser: Chromium without a screen, driven as WebDriver says (W3C, <https://www.w3.org/TR/webdriver2/>).
//!
//! `WebDriver` is a dozen JSON calls over HTTP, which the lab can make itself; the crates for it are asynchronous.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    http::Connection,
    lab::{Host, Lab},
    process::Process,
    wait::eventually_some,
};

/// The key of an element in JSON, as the standard has it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// What makes it small, quiet, and the same everywhere.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    // It is root, in a machine of its own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    // Plain HTTP is what is asked for.
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
];

/// The size of what it shows of a page. Pixels.
const VIEWPORT: (u32, u32) = (640, 340);

/// A browser with a profile of its own, on a machine of the lab. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    host: Host,
    session: String,
    downloads: PathBuf,
}

impl Browser {
    /// `names`: hosts, with `*` for any label, and the address that each leads to whatever port is asked for. There are no
    /// others. Certificates are not judged.
    #[must_use]
    pub fn start(lab: &Lab, host: &Host, names: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("browser-")
            .tempdir_in(lab.directory())
            .expect("a directory")
            .keep();
        let downloads = directory.join("downloads");
        fs::create_dir(&downloads).expect("a directory for downloads");
        // In a PID namespace, which ends as a whole: a browser is many processes.
        let mut command = host.netns.command("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "chromedriver", "--port=0"]);
        // Where it would leave things else.
        for variable in ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, &directory);
        }
        let mut driver = Process::spawn("browser", &mut command, lab.logs());
        let line = driver.wait_for_line("successfully on port");
        let port = line.trim_end_matches('.').rsplit(' ').next().and_then(|port| port.parse().ok());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("the driver's port")));

        let rules: String = names.iter().map(|(name, to)| format!("MAP {name} {to}, ")).collect();
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--host-resolver-rules={rules}MAP * ~NOTFOUND"));
        arguments.push(format!("--user-data-dir={}", directory.join("profile").display()));
        let options = json!({
            "args": arguments,
            "prefs": { "download.default_directory": downloads, "download.prompt_for_download": false },
        });
        let wanted =
            json!({ "browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": options });
        let mut browser = Self { driver, address, host: host.clone(), session: String::new(), downloads };
        let opened = browser.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        let opened = opened.unwrap_or_else(|refused| panic!("no browser: {refused}"));
        browser.session = format!("/session/{}", opened["sessionId"].as_str().expect("a session"));
        browser.show_viewport();
        browser
    }

    /// Opens a page as if its address had been typed; comes back when it has been loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    #[track_caller]
    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// What is in the address bar.
    #[track_caller]
    #[must_use]
    pub fn url(&self) -> String {
        text(&self.get("/url"))
    }

    #[track_caller]
    #[must_use]
    pub fn title(&self) -> String {
        text(&self.get("/title"))
    }

    /// The text of an element as one sees it; waits for the element.
    #[track_caller]
    #[must_use]
    pub fn text(&self, selector: &str) -> String {
        text(&self.get(&format!("/element/{}/text", self.element(selector))))
    }

    /// Waits until an element has this text.
    #[track_caller]
    pub fn wait_for_text(&self, selector: &str, expected: &str) {
        eventually_some(&format!("{selector} of the page reads {expected:?}"), || {
            // It may go while it is looked at.
            let element = self.find(selector)?;
            let seen =
                self.call("GET", &self.path(&format!("/element/{element}/text")), &Value::Null).ok()?;
            (seen == expected).then_some(())
        });
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.post(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// Types into a field, in place of what is there.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/clear"), &json!({}));
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// What a script in the page gives: the body of a function, which may give a promise.
    #[track_caller]
    #[must_use]
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The cookie with this name that the page's requests carry, also one that scripts can't see.
    #[track_caller]
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<Value> {
        let cookies = self.get("/cookie");
        cookies.as_array().expect("cookies").iter().find(|cookie| cookie["name"] == name).cloned()
    }

    /// Adds a cookie, as JSON, to those of the page's site.
    #[track_caller]
    pub fn set_cookie(&self, cookie: &Value) {
        self.post("/cookie", &json!({ "cookie": cookie }));
    }

    /// What a file contains that was downloaded under this name; waits for it.
    #[track_caller]
    #[must_use]
    pub fn downloaded(&self, name: &str) -> Vec<u8> {
        // It gets its name when it is complete.
        eventually_some(&format!("{name} is downloaded"), || fs::read(self.downloads.join(name)).ok())
    }

    /// A picture of what is seen of the page, 640 by 340: a PNG.
    #[track_caller]
    #[must_use]
    pub fn screenshot(&self) -> Vec<u8> {
        STANDARD.decode(text(&self.get("/screenshot"))).expect("a picture in base64")
    }

    /// Windows have borders, of which the page knows the size.
    fn show_viewport(&self) {
        let inner = self.run("return [outerWidth - innerWidth, outerHeight - innerHeight]");
        let border = |index: usize| inner[index].as_u64().unwrap_or_default();
        let (width, height) = (u64::from(VIEWPORT.0) + border(0), u64::from(VIEWPORT.1) + border(1));
        self.post("/window/rect", &json!({ "width": width, "height": height }));
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        eventually_some(&format!("the page has {selector}"), || self.find(selector))
    }

    fn find(&self, selector: &str) -> Option<String> {
        let request = json!({ "using": "css selector", "value": selector });
        let found = self.call("POST", &self.path("/element"), &request).ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.call("GET", &self.path(path), &Value::Null).unwrap_or_else(|refused| panic!("{path}: {refused}"))
    }

    #[track_caller]
    fn post(&self, path: &str, request: &Value) -> Value {
        self.call("POST", &self.path(path), request)
            .unwrap_or_else(|refused| panic!("{path} {request}: {refused}"))
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.session)
    }

    /// The error is what the driver says, such as "no such element".
    fn call(&self, method: &str, path: &str, request: &Value) -> Result<Value, String> {
        let body = if request.is_null() { String::new() } else { request.to_string() };
        let (to, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {length}\r\n\r\n");
        let connection = self.host.netns.run(|| Connection::open(to));
        let mut connection = connection.map_err(|error| error.to_string())?;
        let asked = connection.try_send(head + &body).and_then(|()| connection.try_response(method));
        let answer = asked.map_err(|error| error.to_string())?;
        let value = answer.json()["value"].clone();
        if answer.status == 200 { Ok(value) } else { Err(value.to_string()) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", &self.session, &Value::Null);
        // Its namespace ends with the driver, and so do all processes in it.
        let _ = self.call("GET", "/shutdown", &Value::Null);
        if !thread::panicking() {
            self.driver.wait();
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}
