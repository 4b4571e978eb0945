//! Debian's archive as this machine knows it, and those of its releases that have older and newer kernels.
//!
//! With package lists of its own below `target`: what the machine installs from stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, step::note};

/// Releases with kernels: 5.10; the machine's own, or Debian 12 (6.1, 6.12); the newest.
const RELEASES: [&str; 3] = ["bullseye", "bookworm", "trixie-backports"];
const SECURITY_RELEASES: [&str; 2] = ["bullseye-security", "bookworm-security"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Kernels without drivers for hardware: small, and with all that is needed here.
const FLAVOUR: &str = "cloud-amd64";

#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    packages: Vec<String>,
}

impl Archive {
    /// Brings the lists in `directory` up to date.
    pub fn open(directory: &Path) -> Result<Self> {
        for needed in ["lists/partial", "cache/archives/partial"] {
            let needed = directory.join(needed);
            fs::create_dir_all(&needed).with_context(|| format!("cannot make {}", needed.display()))?;
        }
        let mut archive = Self { directory: directory.to_owned(), packages: Vec::new() };
        let targets = process::read(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE)",
        ]))?;
        let sources = archive.sources();
        fs::write(&sources, sources_from(&targets)?)
            .with_context(|| format!("cannot write {}", sources.display()))?;
        if let Err(error) = process::run_quietly(archive.apt("apt-get").args(["-q", "update"])) {
            note(format!("goes on with old package lists: {error:#}"));
        }
        let names = process::read(archive.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        archive.packages = names.lines().map(str::to_owned).collect();
        Ok(archive)
    }

    /// The newest release of the kernel that begins with `wanted`.
    pub fn release(&self, wanted: &str) -> Result<String> {
        let releases = self.packages.iter().filter_map(|package| package.strip_prefix("linux-image-"));
        match newest(releases, wanted) {
            Some(release) => Ok(release.to_owned()),
            None => {
                bail!("Debian has no kernel {wanted} (linux-image-{wanted}…-{FLAVOUR}) any more, or not yet")
            }
        }
    }

    /// Downloads the packages of a kernel into `directory`. (Since 6.17 there are several.)
    pub fn download(&self, release: &str, directory: &Path) -> Result<()> {
        let parts = ["base", "binary", "image", "modules"].map(|part| format!("linux-{part}-{release}"));
        let parts = parts.iter().filter(|part| self.packages.contains(part));
        process::run_quietly(self.apt("apt-get").args(["-q", "download"]).args(parts).current_dir(directory))
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("debian.sources")
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let directory = self.directory.display();
        for option in [
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            format!("Dir::Etc::sourcelist={}", self.sources().display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // Its own user can't write everywhere.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt
    }
}

/// `targets` has an address and a release in each line.
fn sources_from(targets: &str) -> Result<String> {
    let of = |wanted: fn(&str) -> bool| {
        let mut targets = targets.lines().filter_map(|line| line.split_once(' '));
        targets.find(|(_, release)| wanted(release)).map(|(address, _)| address)
    };
    let is_main = |release: &str| {
        !release.contains('-') && RELEASES.iter().chain(&["trixie"]).any(|known| release == *known)
    };
    let main = of(is_main).context("apt does not know Debian's archive: see /etc/apt/sources.list.d")?;
    let stanza = |address: &str, releases: &[&str]| {
        format!(
            "Types: deb\nURIs: {address}\nSuites: {}\nComponents: main\nSigned-By: {KEYRING}\n\n",
            releases.join(" ")
        )
    };
    let security = of(|release| release.ends_with("-security"));
    let security = security.map(|address| stanza(address, &SECURITY_RELEASES));
    Ok(stanza(main, &RELEASES) + &security.unwrap_or_default())
}

/// Of `releases` the newest of our flavour that begins with the numbers of `wanted`; `newest` is any.
fn newest<'a>(releases: impl Iterator<Item = &'a str>, wanted: &str) -> Option<&'a str> {
    let wanted = if wanted == "newest" { Vec::new() } else { numbers(wanted) };
    let numbered = releases.filter_map(|release| Some((numbers(release.strip_suffix(FLAVOUR)?), release)));
    // Packages that stand for a whole series have two numbers only.
    let fitting = numbered.filter(|(numbers, _)| numbers.len() > 2 && numbers.starts_with(&wanted));
    fitting.max().map(|(_, release)| release)
}

fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_its_numbers() {
        let releases = [
            "6.1-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-10-cloud-amd64",
            "6.12.99+deb12-cloud-amd64",
            "6.12.107+deb12-cloud-amd64",
        ];
        let found = |wanted| newest(releases.into_iter(), wanted);
        assert_eq!(found("6.1"), Some("6.1.0-10-cloud-amd64"));
        assert_eq!(found("6.12"), Some("6.12.107+deb12-cloud-amd64"));
        assert_eq!(found("6.12.99"), Some("6.12.99+deb12-cloud-amd64"));
        assert_eq!(found("newest"), Some("6.12.107+deb12-cloud-amd64"));
        assert_eq!(found("5.10"), None);
    }

    #[test]
    fn other_releases_are_where_the_machines_own_is() {
        let sources = sources_from(
            "http://m/security/ bookworm-security\nhttp://m/tools/ stable\nhttp://m/debian/ bookworm\n",
        )
        .unwrap();
        assert!(
            sources.contains("URIs: http://m/debian/\nSuites: bullseye bookworm trixie-backports\n"),
            "{sources}"
        );
        assert!(
            sources.contains("URIs: http://m/security/\nSuites: bullseye-security bookworm-security\n"),
            "{sources}"
        );
        assert!(sources_from("http://m/tools/ stable\n").is_err());
    }
}
