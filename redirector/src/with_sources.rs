//! An error with what caused it, in one line: many of aya's say only what failed, and leave the reason to their source.

use std::error::Error;

pub fn with_sources(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |&source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::sys::SyscallError;

    #[test]
    fn a_system_call_that_fails_is_named_with_its_reason() {
        let error = SyscallError {
            call: "bpf_link_create",
            io_error: std::io::Error::from_raw_os_error(libc::EINVAL),
        };
        assert_eq!(with_sources(&error), "`bpf_link_create` failed: Invalid argument (os error 22)");
    }
}
