//! The TCP options of one segment of an established connection.

use std::fmt;

const END: u8 = 0;
const NOP: u8 = 1;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// The timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The receiver's clock as the sender saw it last.
    pub echo: u32,
}

/// Why the options of a segment make it one that is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfitOptions {
    /// An option that changes what a connection is (Multipath TCP, MD5, TCP-AO), or one that is not known.
    Kind(u8),
    /// A length that does not fit.
    Malformed,
}

impl fmt::Display for UnfitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "TCP option {kind}"),
            Self::Malformed => f.write_str("malformed TCP options"),
        }
    }
}

/// Reads the options of a segment that is not a SYN, as they stand behind the TCP header.
///
/// # Errors
/// Anything but padding, timestamps and selective acknowledgements (RFC 9293 §3.1, RFC 2018, RFC 7323).
pub fn timestamps(mut options: &[u8]) -> Result<Option<Timestamps>, UnfitOptions> {
    let mut found = None;
    while let [kind, rest @ ..] = options {
        match *kind {
            END => break,
            NOP => {
                options = rest;
                continue;
            }
            _ => {}
        }
        let length = usize::from(*rest.first().ok_or(UnfitOptions::Malformed)?);
        let value = options.get(2..length).ok_or(UnfitOptions::Malformed)?;
        match (*kind, value) {
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                found = Some(Timestamps {
                    value: u32::from_be_bytes([a, b, c, d]),
                    echo: u32::from_be_bytes([e, f, g, h]),
                });
            }
            (TIMESTAMPS, _) => return Err(UnfitOptions::Malformed),
            (SACK, _) => {}
            (kind, _) => return Err(UnfitOptions::Kind(kind)),
        }
        options = &options[length..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linux lays them out.
    const LINUX: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 1, 0];

    #[test]
    fn timestamps_are_found_wherever_they_stand() {
        let expected = Ok(Some(Timestamps { value: 7, echo: 256 }));
        assert_eq!(timestamps(&LINUX), expected);
        let sack = [1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(timestamps(&[sack, LINUX].concat()), expected);
        assert_eq!(timestamps(&[&LINUX[2..], &[0, 0]].concat()), expected);
        assert_eq!(timestamps(&[]), Ok(None));
        assert_eq!(timestamps(&sack), Ok(None));
    }

    #[test]
    fn what_makes_a_connection_special_is_unfit() {
        assert_eq!(timestamps(&[30, 4, 0, 0]), Err(UnfitOptions::Kind(30)), "Multipath TCP");
        assert_eq!(timestamps(&[19, 3, 0]), Err(UnfitOptions::Kind(19)), "MD5");
        for malformed in [&[8][..], &[8, 1], &[8, 0], &[8, 3, 0], &[8, 10, 0, 0], &[5, 200]] {
            assert_eq!(timestamps(malformed), Err(UnfitOptions::Malformed), "{malformed:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_and_padding_changes_nothing(
            options in prop::collection::vec(any::<u8>(), 0..40),
            padding in 0_usize..8,
        ) {
            let padded = [vec![NOP; padding], options.clone()].concat();
            prop_assert_eq!(timestamps(&padded), timestamps(&options));
        }
    }
}
