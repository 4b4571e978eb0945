//! `--tls-cert` and `--tls-key`: the certificates of a service that speaks TLS, and their keys.

use crate::api::{PemSource, TlsPair};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use std::{fs::File, io::Read as _, path::PathBuf, str::FromStr};

/// A file inside the target, in place of one here.
const IN_TARGET: &str = "target:";

/// The largest file that is sent, as the agent limits it. Bytes.
const MAX_PEM: u64 = 64 * 1024;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS of the service")]
pub struct TlsArgs {
    /// The service's certificate, a PEM file, so that requests inside TLS can be routed: a file here, or with
    /// target:/PATH one in the service's own file system. Repeat it, each with its --tls-key, for several
    #[arg(long = "tls-cert", value_name = "FILE", requires = "keys")]
    certificates: Vec<PemFile>,

    /// The key of that certificate: a file here, which is sent to the agent, or target:/PATH. The agent keeps it in
    /// memory as long as the intercept is there
    #[arg(long = "tls-key", value_name = "FILE", requires = "certificates")]
    keys: Vec<PemFile>,
}

/// Where a PEM file is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PemFile {
    Here(PathBuf),
    InTarget(String),
}

impl FromStr for PemFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(IN_TARGET) {
            Some(path) if path.starts_with('/') => Ok(Self::InTarget(path.to_owned())),
            Some(_) => Err("a path inside the target begins with a slash: target:/PATH".to_owned()),
            None => Ok(Self::Here(text.into())),
        }
    }
}

impl TlsArgs {
    /// Reads the files that are here.
    pub fn pairs(&self) -> Result<Vec<TlsPair>> {
        let (certificates, keys) = (&self.certificates, &self.keys);
        ensure!(
            certificates.len() == keys.len(),
            "each --tls-cert needs its --tls-key: {} and {} were given",
            certificates.len(),
            keys.len()
        );
        let pair = |(certificate, key): (&PemFile, &PemFile)| {
            Ok(TlsPair { certificate: certificate.source()?, key: key.source()? })
        };
        certificates.iter().zip(keys).map(pair).collect()
    }
}

impl PemFile {
    fn source(&self) -> Result<PemSource> {
        let path = match self {
            Self::InTarget(path) => return Ok(PemSource::Target(path.clone())),
            Self::Here(path) => path,
        };
        let mut content = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_PEM + 1).read_to_end(&mut content));
        read.with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(content.len() as u64 <= MAX_PEM, "{} is larger than {MAX_PEM} bytes", path.display());
        // What is not text in it is nothing that PEM needs.
        Ok(PemSource::Pem(String::from_utf8_lossy(&content).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_here_or_in_the_target() {
        assert_eq!("tls.crt".parse(), Ok(PemFile::Here("tls.crt".into())));
        assert_eq!("./target:/x".parse(), Ok(PemFile::Here("./target:/x".into())));
        assert_eq!("target:/etc/tls.crt".parse(), Ok(PemFile::InTarget("/etc/tls.crt".into())));
        assert!("target:tls.crt".parse::<PemFile>().is_err());
    }

    #[test]
    fn nothing_shows_a_key_that_is_sent() {
        let source = PemSource::Pem("-----BEGIN PRIVATE KEY-----".to_owned());
        assert_eq!(format!("{source:?}"), "Pem(27 bytes)");
    }
}
