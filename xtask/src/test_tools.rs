//! What the tests run against and Debian does not have: installed below `target`, once for each version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{apt, process, step::step, workspace::Workspace};

/// The distribution's Python, whose `venv` is one of the packages that the lab needs.
const PYTHON: &str = "/usr/bin/python3";

/// Where a version of a tool is noted when it is there.
const STAMP: &str = "installed";

/// Installs what is missing, and gives the directory.
pub fn install(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.test_tools();
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let tests = workspace.root().join("tests");
    once("install the gRPC library", &tools.join("grpc"), &[tests.join("requirements.txt")], |directory| {
        install_grpc(directory, &tests)
    })?;
    let h2spec = tests.join("h2spec");
    once(
        "build h2spec",
        &tools.join("h2spec"),
        &[h2spec.join("go.mod"), h2spec.join("go.sum")],
        |directory| build_h2spec(directory, &h2spec),
    )?;
    let answering = tests.join("answering");
    once(
        "build the Go app",
        &tools.join("answering"),
        &[answering.join("go.mod"), answering.join("main.go")],
        |directory| go_build(directory, "answering", ".", &answering),
    )?;
    let collector = tests.join("collector");
    once(
        "build the OpenTelemetry receiver",
        &tools.join("collector"),
        &[collector.join("go.mod"), collector.join("go.sum"), collector.join("main.go")],
        |directory| go_build(directory, "collector", ".", &collector),
    )?;
    Ok(tools)
}

/// Does `work` in an empty `directory`, unless it was done there for the same `inputs`.
fn once(
    what: &str,
    directory: &Path,
    inputs: &[PathBuf],
    work: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut version = String::new();
    for input in inputs {
        version += &fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()))?;
    }
    let stamp = directory.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == version) {
        return Ok(());
    }
    step(what, || {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        work(directory)?;
        fs::write(&stamp, version).with_context(|| format!("cannot write {}", stamp.display()))
    })
}

fn install_grpc(directory: &Path, tests: &Path) -> Result<()> {
    process::run_quietly(Command::new(PYTHON).args(["-m", "venv"]).arg(directory))?;
    let mut pip = Command::new(directory.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]);
    process::run_quietly(pip.arg("--requirement").arg(tests.join("requirements.txt")))
}

fn build_h2spec(directory: &Path, module: &Path) -> Result<()> {
    go_build(directory, "h2spec", "github.com/summerwind/h2spec/cmd/h2spec", module)
}

/// By any Go: that of Debian 12 will do.
fn go_build(directory: &Path, program: &str, package: &str, module: &Path) -> Result<()> {
    if process::in_path("go").is_none() && apt::is_debian() {
        apt::install(&["golang-go"])?;
    }
    let mut go = Command::new("go");
    go.args(["build", "-buildvcs=false", "-modcacherw", "-o"]).arg(directory.join(program));
    go.arg(package).current_dir(module);
    // Nothing outside of `target`.
    go.env("GOPATH", directory.join("go"))
        .env("GOCACHE", directory.join("cache"))
        .env("GOTOOLCHAIN", "local");
    process::run_quietly(&mut go)?;
    // Only the program is needed from here on.
    let unneeded = ["go", "cache"].map(|unneeded| directory.join(unneeded));
    for unneeded in unneeded.into_iter().filter(|unneeded| unneeded.exists()) {
        fs::remove_dir_all(&unneeded).with_context(|| format!("cannot remove {}", unneeded.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_installed_is_installed_again_only_when_its_inputs_change_or_it_failed() {
        let base = tempfile::tempdir().unwrap();
        let (directory, input) = (base.path().join("tool"), base.path().join("input"));
        let times = Cell::new(0);
        let install = |works: bool| {
            once("install", &directory, std::slice::from_ref(&input), |directory| {
                times.set(times.get() + 1);
                assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
                fs::write(directory.join("half"), "").unwrap();
                anyhow::ensure!(works, "no");
                Ok(())
            })
        };
        fs::write(&input, "1").unwrap();
        install(true).unwrap();
        install(true).unwrap();
        assert_eq!(times.get(), 1);
        fs::write(&input, "2").unwrap();
        install(false).unwrap_err();
        install(true).unwrap();
        assert_eq!(times.get(), 3);
    }
}
