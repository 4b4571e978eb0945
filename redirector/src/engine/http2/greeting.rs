//! The first SETTINGS frame of either side (RFC 9113 §3.4, §6.5), read from bytes that pass. Pure.

/// Length of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
const SETTINGS: u8 = 4;
/// Longest frame that a peer may be sent before it has allowed more (RFC 9113 §4.2).
const MAX_FRAME: usize = 16_384;
/// Identifier and value of one setting.
const SETTING: usize = 6;

/// What a side says first, as far as it matters to us. `None`: not said, so the default of RFC 9113 §6.5.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct PeerSettings {
    pub max_concurrent_streams: Option<u32>,
    /// Bytes that may be under way to it on one stream.
    pub initial_window_size: Option<u32>,
    /// Bytes of a header section, as counted by RFC 9113 §6.5.2.
    pub max_header_list_size: Option<u32>,
    /// WebSockets over HTTP/2 may be asked for (RFC 8441 §3).
    pub enable_connect_protocol: bool,
}

/// What the first bytes of a side are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Greeting {
    /// Could become a SETTINGS frame, but so could the first bytes of something else.
    Undecided,
    /// The header of a SETTINGS frame is there, the frame is not.
    Begun,
    Settings(PeerSettings),
    Other,
}

/// Reads the first frame of a side; a client's preface must be off. Says [`Greeting::Other`] at the first impossible byte.
pub(in crate::engine) fn read_greeting(bytes: &[u8]) -> Greeting {
    let header = &bytes[..bytes.len().min(HEADER)];
    if !header.iter().enumerate().all(|(at, &byte)| may_be_at(at, byte)) {
        return Greeting::Other;
    }
    let length = match *header {
        [high, middle, low, ..] => usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low),
        _ => return Greeting::Undecided,
    };
    if length % SETTING != 0 || length > MAX_FRAME {
        return Greeting::Other;
    }
    if header.len() < HEADER {
        return Greeting::Undecided;
    }
    match bytes[HEADER..].get(..length) {
        Some(payload) => Greeting::Settings(PeerSettings::read(payload)),
        None => Greeting::Begun,
    }
}

/// Length below 2^15, type SETTINGS, no flags, stream 0 (the reserved bit is ignored).
fn may_be_at(at: usize, byte: u8) -> bool {
    match at {
        0 | 4 | 6 | 7 | 8 => byte == 0,
        1 => byte <= 0x40,
        3 => byte == SETTINGS,
        5 => byte & 0x7f == 0,
        _ => true,
    }
}

impl PeerSettings {
    /// The last of equal identifiers counts; unknown ones are ignored (RFC 9113 §6.5).
    fn read(payload: &[u8]) -> Self {
        let mut settings = Self::default();
        for setting in payload.chunks_exact(SETTING) {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match id {
                3 => settings.max_concurrent_streams = Some(value),
                4 => settings.initial_window_size = Some(value),
                6 => settings.max_header_list_size = Some(value),
                8 => settings.enable_connect_protocol = value == 1,
                _ => {}
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(settings: &[(u16, u32)]) -> Vec<u8> {
        let length = (settings.len() * SETTING) as u32;
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([SETTINGS, 0, 0, 0, 0, 0]);
        for (id, value) in settings {
            bytes.extend(id.to_be_bytes());
            bytes.extend(value.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn settings_are_read_and_unknown_ones_ignored() {
        let bytes = frame(&[(1, 0), (3, 7), (4, 1 << 20), (6, 8192), (8, 1), (0xfe03, 1), (3, 100)]);
        let settings = PeerSettings {
            max_concurrent_streams: Some(100),
            initial_window_size: Some(1 << 20),
            max_header_list_size: Some(8192),
            enable_connect_protocol: true,
        };
        assert_eq!(read_greeting(&bytes), Greeting::Settings(settings));
        assert_eq!(read_greeting(&frame(&[])), Greeting::Settings(PeerSettings::default()));
    }

    #[test]
    fn what_other_servers_say_first_is_no_greeting() {
        let greetings = [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"220 mail.test ESMTP\r\n",
            b"SSH-2.0-x\r\n",
            // MySQL: length (little endian), sequence number, protocol version.
            b"\x4a\0\0\0\x0a8.0.36\0",
            // A SETTINGS acknowledgement, and SETTINGS on a stream.
            b"\0\0\0\x04\x01\0\0\0\0",
            b"\0\0\0\x04\0\0\0\0\x01",
            // A GOAWAY.
            b"\0\0\x08\x07\0\0\0\0\0",
            // No multiple of 6.
            b"\0\0\x05\x04\0\0\0\0\0",
        ];
        for greeting in greetings {
            assert_eq!(read_greeting(greeting), Greeting::Other, "{greeting:?}");
        }
    }

    proptest! {
        #[test]
        fn any_beginning_is_undecided_until_the_header_is_there(
            settings in proptest::collection::vec((any::<u16>(), any::<u32>()), 0..20), rest: Vec<u8>,
        ) {
            let bytes = frame(&settings);
            for len in 0..bytes.len() {
                let expected = if len < HEADER { Greeting::Undecided } else { Greeting::Begun };
                prop_assert_eq!(read_greeting(&bytes[..len]), expected);
            }
            let whole = read_greeting(&bytes);
            prop_assert!(matches!(whole, Greeting::Settings(_)));
            prop_assert_eq!(read_greeting(&[bytes, rest].concat()), whole, "what follows changes nothing");
        }

        #[test]
        fn more_bytes_never_take_a_no_back(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let mut other = false;
            for len in 0..=bytes.len() {
                let greeting = read_greeting(&bytes[..len]);
                prop_assert!(!other || greeting == Greeting::Other);
                other = greeting == Greeting::Other;
            }
        }
    }
}
