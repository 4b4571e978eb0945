//! `redirector trace`: asks agents and gateway which requests they have seen, and prints the path of each.

use super::{
    connection::{GatewayArgs, agent_with_token, default_agent},
    output::{OutputArgs, block_on},
};
use crate::{
    client::{ApiAddress, CallError},
    context::InterceptKey,
    trace::{
        mark::Mark,
        query::{MAX_QUESTION, TraceQuery, Traced, Window},
        text,
        traceparent::TraceId,
        tree::{Addresses, Sighting, Tree, around, grow},
    },
};
use anyhow::{Result, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

/// Show the path of requests from hop to hop, and which hop dropped the context
///
/// Agents remember the last requests that met an intercept, and those of services that `redirector observe` looks at;
/// gateways those of previews. From what all of them know the path of each request is put together: where it was seen, with
/// which of the headers that carry context, who answered, and how long it took. A hop that got the context and did not
/// pass it on is marked with ✗; with ? where it served other requests at that time, which may have been the cause.
#[derive(Args, Debug)]
pub struct TraceCommand {
    /// The key of an intercept, a trace id (32 hex digits), or the name of an intercept, observer or preview
    #[arg(value_name = "KEY|TRACE-ID|NAME")]
    what: String,

    /// How many requests to show, the last ones
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    last: usize,

    /// An agent to ask: HOST:PORT, or unix:PATH for root on its node. Repeat it for more, each with its --token-file
    /// [default: unix:/var/lib/redirector/agent.sock, or none if there is a --gateway]
    #[arg(
        long = "agent",
        env = "REDIRECTOR_AGENT",
        value_delimiter = ',',
        value_name = "ADDRESS",
        help_heading = "Agents"
    )]
    agents: Vec<String>,

    /// A file with the join token for an agent with HOST:PORT, in the same order. For a single agent the token itself can be
    /// in REDIRECTOR_TOKEN
    #[arg(long = "token-file", value_name = "PATH", help_heading = "Agents")]
    token_files: Vec<PathBuf>,

    #[command(flatten)]
    gateway: GatewayArgs,

    #[command(flatten)]
    output: OutputArgs,
}

impl TraceCommand {
    pub fn run(self) -> Result<ExitCode> {
        let mut asked = self.agents()?;
        if self.gateway.is_given() {
            asked.push(self.gateway.address()?);
        } else if asked.is_empty() {
            asked.push(default_agent());
        }
        let trees = block_on(trees(&asked, &self.what))?;
        let last = &trees[trees.len().saturating_sub(self.last)..];
        self.output.print(&last, |last| self.text(last))?;
        Ok(if trees.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn agents(&self) -> Result<Vec<ApiAddress>> {
        let mut files = self.token_files.iter();
        let agents = self.agents.iter().map(|agent| match agent.starts_with("unix:") {
            true => agent_with_token(agent, None),
            false => agent_with_token(agent, files.next().map(PathBuf::as_path)),
        });
        let agents = agents.collect::<Result<_>>()?;
        ensure!(files.next().is_none(), "there are more --token-file than --agent with HOST:PORT");
        Ok(agents)
    }

    fn text(&self, trees: &[Tree]) -> String {
        if trees.is_empty() {
            return format!(
                "No request of \"{}\" was seen. Agents see those that match an intercept, and those at services that \
                 `redirector observe` looks at, and remember some thousand.",
                self.what
            );
        }
        trees.iter().map(text::text).collect::<Vec<_>>().join("\n")
    }
}

/// The paths of all requests that are asked for, the oldest first.
async fn trees(asked: &[ApiAddress], what: &str) -> Result<Vec<Tree>> {
    let question = question(what);
    let clocks = vec![Some(SignedDuration::ZERO); asked.len()];
    let Known { mut sightings, clocks, .. } = ask(asked, &question, &clocks).await?;
    // The newest; those that belong to them were seen at the same time, or have their trace id.
    sightings.sort_by_key(|sighting| sighting.seen.started);
    let found = &sightings[sightings.len().saturating_sub(MAX_QUESTION)..];
    let traces: BTreeSet<TraceId> = found.iter().filter_map(|sighting| sighting.seen.trace).collect();
    let windows = found.iter().map(|sighting| around(&sighting.seen)).collect();
    let belonging = TraceQuery { traces: traces.into_iter().collect(), windows, ..question.clone() };
    let Known { addresses, sightings, .. } = ask(asked, &belonging, &clocks).await?;
    let mut trees = grow(sightings, &addresses);
    trees.retain(|tree| tree.any(&|seen| question.applies_to(seen)));
    Ok(trees)
}

fn question(what: &str) -> TraceQuery {
    let key = what.parse::<InterceptKey>().ok();
    TraceQuery {
        name: Some(what.to_owned()),
        marks: key.iter().map(Mark::of_key).collect(),
        traces: what.to_ascii_lowercase().parse().into_iter().collect(),
        windows: Vec::new(),
    }
}

/// What all of them know, on our clock.
#[derive(Default)]
struct Known {
    addresses: Addresses,
    sightings: Vec<Sighting>,
    /// How far each of their clocks is ahead of ours; `None` for those that gave no answer.
    clocks: Vec<Option<SignedDuration>>,
}

/// `clocks`: how far theirs are ahead of ours, as far as that is known; `None` for those that are not to be asked. Fails
/// if nobody answers.
async fn ask(
    asked: &[ApiAddress],
    question: &TraceQuery,
    clocks: &[Option<SignedDuration>],
) -> Result<Known> {
    let mut known = Known::default();
    let mut problem = None;
    for (source, (api, clock)) in asked.iter().zip(clocks).enumerate() {
        known.clocks.push(None);
        let Some(clock) = clock else { continue };
        let mut question = question.clone();
        for window in &mut question.windows {
            *window = Window { from: window.from.checked_add(*clock)?, to: window.to.checked_add(*clock)? };
        }
        let before = Timestamp::now();
        let answer: Traced = match api.post("/v1/trace", &question).await {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(earlier) = problem.replace((api, error)) {
                    warn_of(earlier);
                }
                continue;
            }
        };
        let after = Timestamp::now();
        // Taken in the middle of the call, as far as anybody knows.
        let here = before.checked_add(after.duration_since(before) / 2)?;
        let ahead = answer.now.duration_since(here);
        known.clocks[source] = Some(ahead);
        let hops = answer.hops.into_iter();
        known.addresses.extend(hops.map(|hop| ((source, hop.hop), hop.addresses.into_iter().collect())));
        for mut seen in answer.observations {
            seen.started = seen.started.checked_sub(ahead).unwrap_or(seen.started);
            known.sightings.push(Sighting { source, seen });
        }
    }
    match problem {
        Some((_, error)) if known.clocks.iter().all(Option::is_none) => Err(error.into()),
        problem => {
            problem.into_iter().for_each(warn_of);
            Ok(known)
        }
    }
}

fn warn_of((api, error): (&ApiAddress, CallError)) {
    eprintln!("warning: what {api} has seen is not shown: {error:#}");
}
