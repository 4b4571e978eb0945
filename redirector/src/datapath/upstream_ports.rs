//! Which ports of the agent have connections to apps whose client is recorded: a bit each, in words as the programs read them.

use redirector_common::{PORT_WORDS, port_bit};

/// How many records there are of each port.
#[derive(Debug)]
pub struct UpstreamPorts {
    records: Vec<u32>,
    words: Vec<u64>,
}

/// A word that is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub index: u32,
    pub word: u64,
}

impl UpstreamPorts {
    pub fn new() -> Self {
        Self { records: vec![0; usize::from(u16::MAX) + 1], words: vec![0; PORT_WORDS as usize] }
    }

    /// One record more.
    pub fn add(&mut self, port: u16) -> Option<Changed> {
        let records = &mut self.records[usize::from(port)];
        *records += 1;
        (*records == 1).then(|| self.toggle(port))
    }

    /// One of them less.
    pub fn remove(&mut self, port: u16) -> Option<Changed> {
        let records = &mut self.records[usize::from(port)];
        *records -= 1;
        (*records == 0).then(|| self.toggle(port))
    }

    fn toggle(&mut self, port: u16) -> Changed {
        let (index, bit) = port_bit(port);
        let word = &mut self.words[index as usize];
        *word ^= bit;
        Changed { index, word: *word }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_its_bit_while_there_are_records_of_it() {
        let mut ports = UpstreamPorts::new();
        assert_eq!(ports.add(65), Some(Changed { index: 1, word: 0b10 }));
        assert_eq!(ports.add(66), Some(Changed { index: 1, word: 0b110 }));
        assert_eq!(ports.add(65), None);
        assert_eq!(ports.remove(65), None);
        assert_eq!(ports.remove(65), Some(Changed { index: 1, word: 0b100 }));
        assert_eq!(ports.add(u16::MAX), Some(Changed { index: 1023, word: 1 << 63 }));
    }
}
