//! Why a condition cannot be made, in words for the person who typed it.

/// A condition that could never match, or that its header could not carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    #[error("`{0}` has no `=`: write NAME=VALUE, for example x-user=alice")]
    NoEqualsSign(String),
    #[error("the name before `=` is missing: write NAME=VALUE, for example x-user=alice")]
    EmptyName,
    #[error("the value of `{name}` is empty: write {name}=VALUE (is a shell variable unset?)")]
    EmptyValue { name: String },
    #[error("the value of `{name}` has a line break, NUL or other control character: remove it")]
    ControlCharacter { name: String },
    #[error("`{what}` is too long: {max} bytes at most")]
    TooLong { what: String, max: usize },
    #[error(
        "`{0}` is no header name: use letters, digits and any of !#$%&'*+-.^_`|~, without spaces or a colon"
    )]
    HeaderName(String),
    #[error("`{0}` is no baggage key: use letters, digits and any of !#$%&'*+-.^_`|~, without spaces")]
    BaggageKey(String),
    #[error(
        "`{0}` is no tracestate key: use 1 to 256 of a-z, 0-9, _, -, *, / and @, and start with a letter or digit"
    )]
    TracestateKey(String),
    #[error(
        "tracestate cannot carry the value of `{key}`: use 1 to 256 printable ASCII characters without `,` and `=`, \
         and no space at the start or end"
    )]
    TracestateValue { key: String },
    #[error("`{pattern}` cannot be used as a regular expression: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("`{0}` is no path: start with `/`, and leave out host, query (`?…`) and fragment (`#…`)")]
    Path(String),
    #[error("`{0}` is no method: use letters, digits and any of !#$%&'*+-.^_`|~, as in GET")]
    Method(String),
    #[error("methods are case-sensitive: write {}", .0.to_ascii_uppercase())]
    MethodCase(String),
    #[error("give at least one method, and {max} at most")]
    MethodCount { max: usize },
    #[error("`{0}` is no preset: write TOOL=KEY, where TOOL is one of {tools}", tools = super::Preset::names())]
    Preset(String),
    #[error("an intercept key has {min} to {max} of a-z and 0-9: leave it out to get a random one")]
    InterceptKey { min: usize, max: usize },
}
