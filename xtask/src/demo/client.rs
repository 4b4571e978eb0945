//! The real curl on the client's machine.

use lab::Host;

/// The header by which the developer's requests are known, as curl and as `redirector intercept` take it.
pub const HEADER: &str = "x-dev: alice";
pub const CONDITION: &str = "x-dev=alice";

/// Options of every request: say why it failed, and do so soon.
const OPTIONS: [&str; 3] = ["-sS", "-m", "5"];

/// The facts that follow each body, on a line of their own.
const FACTS: &str = "port %{local_port} connects %{num_connects}\\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    Without,
    With,
}

impl Context {
    pub const BOTH: [Self; 2] = [Self::Without, Self::With];

    pub fn in_words(self) -> &'static str {
        match self {
            Self::Without => "without the header",
            Self::With => "with the header",
        }
    }
}

/// One answer of several on a curl command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub body: String,
    /// The client's port of the connection.
    pub port: u16,
    /// Connections that curl opened for this request: 0 when it used the one it had.
    pub connects: u32,
}

/// The arguments of one request.
pub fn request(context: Context, url: &str) -> Vec<&str> {
    match context {
        Context::Without => vec![url],
        Context::With => vec!["-H", HEADER, url],
    }
}

/// The command line as one would type it.
pub fn shown(context: Context, url: &str) -> String {
    match context {
        Context::Without => format!("curl {url}"),
        Context::With => format!("curl -H '{HEADER}' {url}"),
    }
}

/// Who answers one request, on a connection of its own; or why nobody does.
pub fn ask(client: &Host, context: Context, url: &str) -> String {
    curl(client, &[&OPTIONS, &request(context, url)[..]].concat()).unwrap_or_else(|error| error)
}

/// Several requests with one curl, which keeps its connection open from one to the next; or why it failed.
pub fn ask_in_turn(client: &Host, contexts: &[Context], url: &str) -> Result<Vec<Answer>, String> {
    let mut arguments = Vec::new();
    for (number, context) in contexts.iter().enumerate() {
        if number > 0 {
            arguments.push("--next");
        }
        arguments.extend(OPTIONS);
        arguments.extend(["-w", FACTS]);
        arguments.extend(request(*context, url));
    }
    curl(client, &arguments).map(|output| answers(&output))
}

fn curl(client: &Host, arguments: &[&str]) -> Result<String, String> {
    let output = client.netns.command("curl").args(arguments).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn answers(output: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut body = String::new();
    for line in output.lines() {
        match facts(line) {
            Some((port, connects)) => {
                answers.push(Answer { body: std::mem::take(&mut body), port, connects });
            }
            None => body += line,
        }
    }
    answers
}

fn facts(line: &str) -> Option<(u16, u32)> {
    let (port, connects) = line.strip_prefix("port ")?.split_once(" connects ")?;
    Some((port.parse().ok()?, connects.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_ends_with_its_facts() {
        let output = "nginx\nport 40000 connects 1\na port\n of call\nport 40000 connects 0\n";
        let answer = |body: &str, connects| Answer { body: body.to_owned(), port: 40000, connects };
        assert_eq!(answers(output), [answer("nginx", 1), answer("a port of call", 0)]);
        assert_eq!(answers("cut off"), []);
    }
}
