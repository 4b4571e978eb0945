//! How a run of the scanners in the kernel, without a connection, tells what it saw.

/// What was seen in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// Heads of requests, or whole responses, modulo 256.
    pub ended: u8,
    /// Heads of requests with a name that is looked for, modulo 256.
    pub interesting: u8,
    /// All of it was read.
    pub finished: bool,
    /// The scan gave up.
    pub raw: bool,
    /// The payload ended where the next message begins.
    pub at_start: bool,
}

impl Rehearsal {
    /// The modes: what the payload is.
    pub const REQUESTS: u8 = 1;
    pub const RESPONSES: u8 = 2;
    pub const RESPONSES_TO_HEAD: u8 = 3;

    #[inline(always)]
    pub const fn to_verdict(self) -> u32 {
        self.ended as u32
            | (self.interesting as u32) << 8
            | (self.finished as u32) << 16
            | (self.raw as u32) << 17
            | (self.at_start as u32) << 18
    }

    pub const fn from_verdict(verdict: u32) -> Self {
        Self {
            ended: verdict as u8,
            interesting: (verdict >> 8) as u8,
            finished: verdict >> 16 & 1 != 0,
            raw: verdict >> 17 & 1 != 0,
            at_start: verdict >> 18 & 1 != 0,
        }
    }
}
