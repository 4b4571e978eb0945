//! The flags that say which requests an intercept takes.

use crate::context::{
    BaggageCondition, Condition, HeaderCondition, HeaderRegexCondition, InterceptKey, Matcher,
    MethodsCondition, PathCondition, PathPrefixCondition, PathRegexCondition, PresetCondition,
    TracestateCondition, parse_method,
};
use anyhow::Result;
use clap::Args;
use http::Method;

/// All flags that are given must hold (of several --method one is enough).
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which requests")]
pub struct MatcherArgs {
    /// Those with this header, its value exactly this, in any of its lines
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<HeaderCondition>,

    /// Those with this header, its whole value matched by a regular expression (of bytes; no look-around)
    #[arg(long = "header-regex", value_name = "NAME=RE")]
    header_regexes: Vec<HeaderRegexCondition>,

    /// Those with this member in W3C baggage; the value as it is before percent-encoding
    #[arg(long, value_name = "KEY=VALUE")]
    baggage: Vec<BaggageCondition>,

    /// Those with this member in W3C trace state
    #[arg(long, value_name = "KEY=VALUE")]
    tracestate: Vec<TracestateCondition>,

    /// Those with exactly this path (the query does not count)
    #[arg(long, value_name = "PATH", conflicts_with_all = ["path_prefix", "path_regex"])]
    path: Option<PathCondition>,

    /// Those whose path starts with these elements: /api takes /api and /api/x, not /apix
    #[arg(long, value_name = "PATH", conflicts_with = "path_regex")]
    path_prefix: Option<PathPrefixCondition>,

    /// Those whose whole path is matched by a regular expression
    #[arg(long, value_name = "RE")]
    path_regex: Option<PathRegexCondition>,

    /// Those with this method, or another one given with this flag
    #[arg(long = "method", value_name = "METHOD", value_parser = parse_method)]
    methods: Vec<Method>,

    /// Those with this key in the headers of another tool: telepresence, signadot, okteto, mirrord or lapdev
    #[arg(long = "preset", value_name = "TOOL=KEY")]
    presets: Vec<PresetCondition>,

    /// All, everybody's; only if the agent allows it
    #[arg(long, conflicts_with_all = ["headers", "header_regexes", "baggage", "tracestate", "path", "path_prefix",
        "path_regex", "methods", "presets"])]
    all: bool,
}

impl MatcherArgs {
    /// For an observer: any key where nothing was asked for.
    pub fn observed(self) -> Result<Matcher> {
        let own = Self { all: true, ..self }.matcher()?;
        Ok(if own.conditions.is_empty() { Matcher { conditions: vec![Condition::AnyKey] } } else { own })
    }

    /// A random key where nothing was asked for.
    pub fn matcher(self) -> Result<Matcher> {
        let mut conditions: Vec<Condition> = Vec::new();
        conditions.extend(self.headers.into_iter().map(Condition::Header));
        conditions.extend(self.header_regexes.into_iter().map(Condition::HeaderRegex));
        conditions.extend(self.baggage.into_iter().map(Condition::Baggage));
        conditions.extend(self.tracestate.into_iter().map(Condition::Tracestate));
        conditions.extend(self.presets.into_iter().map(Condition::Preset));
        conditions.extend(self.path.map(Condition::Path));
        conditions.extend(self.path_prefix.map(Condition::PathPrefix));
        conditions.extend(self.path_regex.map(Condition::PathRegex));
        if !self.methods.is_empty() {
            conditions.push(Condition::Methods(MethodsCondition::new(self.methods)?));
        }
        if conditions.is_empty() && !self.all {
            conditions.push(Condition::Key(InterceptKey::random()?));
        }
        Ok(Matcher { conditions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        matcher: MatcherArgs,
    }

    fn parse(flags: &[&str]) -> Result<Matcher, clap::Error> {
        let flags = Flags::try_parse_from([&["test"], flags].concat())?;
        Ok(flags.matcher.matcher().unwrap())
    }

    #[test]
    fn without_flags_a_random_key_is_asked_for() {
        assert!(matches!(parse(&[]).unwrap().conditions[..], [Condition::Key(_)]));
        assert!(parse(&["--all"]).unwrap().conditions.is_empty());
    }

    #[test]
    fn all_flags_combine_into_one_matcher() {
        let flags = [
            "--header=x-a=1",
            "--header=x-b=2",
            "--header-regex=x-c=[0-9]+",
            "--baggage=user=al ice",
            "--tracestate=vendor=1",
            "--preset=okteto=ns",
            "--path-prefix=/api/",
            "--method=POST",
            "--method=GET",
        ];
        assert_eq!(
            parse(&flags).unwrap().to_string(),
            "header x-a=1 and header x-b=2 and header regex x-c=[0-9]+ and baggage user=al ice and tracestate \
             vendor=1 and preset okteto=ns and path prefix /api and method GET or POST"
        );
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for flags in [
            &["--path=/a", "--path-prefix=/a"][..],
            &["--path=/a", "--path-regex=/a"],
            &["--path-prefix=/a", "--path-regex=/a"],
            &["--path=/a", "--path=/b"],
            &["--all", "--header=a=b"],
            &["--all", "--header-regex=a=b"],
            &["--all", "--baggage=a=b"],
            &["--all", "--tracestate=a=b"],
            &["--all", "--path=/"],
            &["--all", "--path-prefix=/a"],
            &["--all", "--path-regex=/a"],
            &["--all", "--method=GET"],
            &["--all", "--preset=okteto=a"],
        ] {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }
}
