//! Runs other programs; an error names the command line.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Runs `command` on this terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` and shows what it wrote only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    read(command).map(drop)
}

/// What `command` writes to its standard output.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| cannot_start(command))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{stdout}{stderr}", shown(command), output.status);
    }
    Ok(stdout.into_owned())
}

/// Where `program` is found in `$PATH`.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

pub fn is_root() -> bool {
    read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// A command that runs `program` as root: through sudo when this is not root.
pub fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = in_path("sudo").context("needs root, and there is no sudo here: run it as root")?;
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// Removes every inherited variable whose name is `unwanted`.
pub fn without_variables(command: &mut Command, unwanted: impl Fn(&str) -> bool) -> &mut Command {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(&unwanted)) {
        command.env_remove(name);
    }
    command
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", shown(command))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    [program].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
