//! Which header lines are to be judged by their names, and which members of lists by their keys.

/// How the lines begin that are to be judged: a bit for what their first six bytes come to. All other lines need no look at
/// their names, which is most of the work with a head.
///
/// Six bytes tell `traces`tate from `tracep`arent, and few names are shorter.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineStarts(u64);

impl LineStarts {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);
    /// The lines of a request that say where the next one begins, and in which protocol.
    pub const OF_REQUESTS: Self =
        Self::NONE.with(b"content-length").with(b"transfer-encoding").with(b"upgrade");
    /// The line that says that it is the last one.
    pub const OF_CLOSING_REQUESTS: Self = Self::NONE.with(b"connection");

    /// And those with this name, in lower case.
    #[must_use]
    pub const fn with(self, name: &[u8]) -> Self {
        let mut start = 0;
        let mut at = 0;
        while at < BYTES {
            if at > name.len() {
                // What comes behind the colon is not known.
                return Self::ALL;
            }
            let byte = if at == name.len() { b':' } else { name[at] };
            start |= (byte as u64) << (at * 8);
            at += 1;
        }
        Self(self.0 | bit(start))
    }

    /// A line that begins with these bytes, the first one lowest, is to be judged.
    #[inline(always)]
    pub const fn has(self, word: u64) -> bool {
        self.0 & bit(word) != 0
    }

    /// As in the maps.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// The same of members of lists, with what their first three bytes come to: few keys are shorter.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberStarts(u32);

impl MemberStarts {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(u32::MAX);

    /// And those with this key, as it is.
    #[must_use]
    pub const fn with(self, key: &[u8]) -> Self {
        match key {
            [first, second, third, ..] => {
                Self(self.0 | member_bit(u64::from_le_bytes([*first, *second, *third, 0, 0, 0, 0, 0])))
            }
            // What comes behind it is not known.
            _ => Self::ALL,
        }
    }

    /// And, if a header of this name, in lower case, is a list, all: it is looked for by itself.
    #[must_use]
    pub fn with_header(self, name: &[u8]) -> Self {
        if matches!(name, b"baggage" | b"tracestate") { Self::ALL } else { self }
    }

    /// A member that begins with these bytes, the first one lowest, is to be judged.
    #[inline(always)]
    pub const fn has(self, word: u64) -> bool {
        self.0 & member_bit(word) != 0
    }

    /// As in the maps.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

#[inline(always)]
const fn member_bit(word: u64) -> u32 {
    1 << ((word << 40).wrapping_mul(SPREAD) >> 59)
}

const BYTES: usize = 6;
/// A multiplier of MurmurHash3 (`fmix64`). With it hardly any usual name comes to the same as one that frames.
const SPREAD: u64 = 0xff51_afd7_ed55_8ccd;

/// Names in upper and in lower case come to the same.
#[inline(always)]
const fn bit(word: u64) -> u64 {
    const LOWER: u64 = 0x2020_2020_2020;
    1 << ((word << 16 | LOWER << 16).wrapping_mul(SPREAD) >> 58)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(line: &[u8; 8]) -> u64 {
        u64::from_le_bytes(*line)
    }

    #[test]
    fn a_line_is_judged_by_its_first_six_bytes_in_any_case() {
        let starts = LineStarts::NONE.with(b"tracestate").with(b"x-dev");
        for line in [b"tracesta", b"TraceSta", b"TRACESxx", b"x-dev: a", b"X-Dev:a "] {
            assert!(starts.has(word(line)), "{line:?}");
        }
        for line in [b"tracepar", b"accept: ", b"x-dem: a"] {
            assert!(!starts.has(word(line)), "{line:?}");
        }
    }

    #[test]
    fn with_a_short_name_all_lines_are_judged() {
        assert_eq!(LineStarts::OF_REQUESTS.with(b"x-me"), LineStarts::ALL);
        assert_ne!(LineStarts::OF_REQUESTS.with(b"x-you"), LineStarts::ALL);
    }

    #[test]
    fn usual_lines_of_requests_are_not_judged() {
        let lines = [
            b"Host: a.",
            b"User-Age",
            b"Accept: ",
            b"Accept-E",
            b"Cookie: ",
            b"Connecti",
            b"Cache-Co",
            b"Authoriz",
            b"Referer:",
            b"Sec-Fetc",
            b"sec-ch-u",
            b"X-Forwar",
            b"X-Real-I",
            b"X-Reques",
            b"tracepar",
            b"If-None-",
            b"If-Modif",
            b"Priority",
        ];
        for line in lines {
            assert!(!LineStarts::OF_REQUESTS.has(word(line)), "{line:?}");
        }
    }

    #[test]
    fn a_member_is_judged_by_its_first_three_bytes() {
        let starts = MemberStarts::NONE.with(b"user").with(b"dev");
        for member in [b"user=a,b", b"useful=1", b"dev=a,bc", b"dev \t= a"] {
            assert!(starts.has(word(member)), "{member:?}");
        }
        for member in [b"User=a,b", b"de=v,dev", b"isProduc"] {
            assert!(!starts.has(word(member)), "{member:?}");
        }
        assert_eq!(MemberStarts::NONE.with(b"sd"), MemberStarts::ALL);
        assert_eq!(MemberStarts::NONE.with_header(b"baggage"), MemberStarts::ALL);
        assert_eq!(MemberStarts::NONE.with_header(b"x-user"), MemberStarts::NONE);
    }
}
