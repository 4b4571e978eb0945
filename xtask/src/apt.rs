//! Installs Debian packages: only what is missing, without questions, without starting daemons.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use crate::{
    process,
    step::{note, step},
};

/// Runs `$2…` while the policy file `$1` forbids maintainer scripts to start daemons; then puts back what
/// was there. In a shell, because its trap also does this when Ctrl-C ends the lot.
const WITHOUT_DAEMONS: &str = r#"
policy=$1; shift
restore() { rm -f "$policy"; if [ -e "$policy.saved" ]; then mv "$policy.saved" "$policy"; fi; }
trap restore EXIT; trap 'exit 130' INT; trap 'exit 143' TERM HUP
# What a killed run left: its own policy, and beside it the one to put back.
if grep -qs 'cargo xtask' "$policy"; then restore; fi
if [ -e "$policy" ]; then mv "$policy" "$policy.saved" || exit 1; fi
printf '#!/bin/sh\n# cargo xtask is installing packages\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
"$@"
"#;

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Waits for another apt, in seconds.
const LOCK: &str = "DPkg::Lock::Timeout=300";

/// Whether this is Debian, whose package names we know.
pub fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| matches!(line, "ID=debian" | "ID=\"debian\"")))
        && process::in_path("apt-get").is_some()
}

/// Installs those of `packages` that are not there, by sudo if need be. Errors when there are some and this is not root and
/// there is no sudo.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if process::as_root("env").is_err() {
        bail!(
            "Debian packages are missing. As root, run:\n    apt-get install -y --no-install-recommends {names}"
        );
    }
    step(format!("install {names}"), || {
        // A broken third-party repository must not matter; if ours is broken, the install says so.
        if let Err(error) = process::run_quietly(as_root("apt-get")?.args(["-q", "-o", LOCK, "update"])) {
            note(format!("goes on with old package lists: {error:#}"));
        }
        process::run_quietly(
            as_root("sh")?
                .args(["-c", WITHOUT_DAEMONS, "apt", POLICY, "apt-get"])
                .args(["install", "-y", "-q", "--no-install-recommends", "-o", LOCK])
                .args(["-o", "Dpkg::Options::=--force-confold"])
                .args(missing),
        )
    })
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // Fails when it does not know one of the names, and still lists the others.
    let mut dpkg = Command::new("dpkg-query");
    let output = dpkg.args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(packages).output()?;
    Ok(not_installed(packages, &String::from_utf8_lossy(&output.stdout)))
}

/// Those of `packages` that are not `installed` in `listed`, lines of a name and a status.
fn not_installed<'a>(packages: &[&'a str], listed: &str) -> Vec<&'a str> {
    let is_installed = |package: &str| listed.lines().any(|line| line == format!("{package} installed"));
    packages.iter().copied().filter(|package| !is_installed(package)).collect()
}

/// `env`, because sudo lets no variables through.
fn as_root(program: &str) -> Result<Command> {
    let mut command = process::as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn without_daemons(policy: &Path, script: &str) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", WITHOUT_DAEMONS, "apt"]).arg(policy).args(["sh", "-c", script]).arg(policy);
        command.status().unwrap().success()
    }

    #[test]
    fn daemons_are_forbidden_while_packages_are_installed_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        assert!(without_daemons(&policy, r#""$0" nginx start; [ $? = 101 ]"#));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn the_policy_of_the_machine_comes_back_also_after_a_failure_and_a_kill() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        fs::write(&policy, "of the machine").unwrap();

        assert!(!without_daemons(&policy, "exit 100"));
        assert_eq!(fs::read_to_string(&policy).unwrap(), "of the machine");

        // SIGKILL to the shell, which then cannot put anything back.
        assert!(!without_daemons(&policy, "kill -KILL $PPID"));
        assert_ne!(fs::read_to_string(&policy).unwrap(), "of the machine");
        assert!(without_daemons(&policy, "true"));
        assert_eq!(fs::read_to_string(&policy).unwrap(), "of the machine");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn what_is_unknown_or_only_configured_is_missing() {
        let listed = "curl installed\nnginx config-files\nnginx-common installed\n";
        assert_eq!(not_installed(&["curl", "nginx", "wrk"], listed), ["nginx", "wrk"]);
    }
}
