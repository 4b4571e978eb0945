//! The tests and the binary, built, and copied to where no later build changes them while a machine runs them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{cargo, process, workspace::Workspace};

#[derive(Debug)]
pub struct Staged {
    /// Holds `redirector` and the tests, each by its name.
    pub directory: PathBuf,
    pub test_tools: PathBuf,
    /// The directories that the tests expect to run in.
    pub redirector: PathBuf,
    pub lab: PathBuf,
}

impl Staged {
    pub fn build(workspace: &Workspace, test_tools: &Path) -> Result<Self> {
        let directory = workspace.kernels().join("tests");
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut cargo = cargo::host(workspace);
        cargo.args(["test", "--locked", "--package", "redirector", "--package", "redirector-tests"]);
        cargo.args(["--tests", "--no-run", "--message-format=json-render-diagnostics"]);
        for (name, executable) in executables(&process::read(&mut cargo)?) {
            copy(&executable, &directory.join(name))?;
        }
        copy(&workspace.release_binary(), &directory.join("redirector"))?;
        Ok(Self {
            directory,
            test_tools: test_tools.to_owned(),
            redirector: workspace.root().join("redirector"),
            lab: workspace.root().join("tests"),
        })
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The tests of `tests` directories, by name, as cargo's `messages` tell of them.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests = messages.filter(|message| message["target"]["kind"][0] == "test");
    tests
        .filter_map(|message| {
            Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_executables_of_tests() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"a"},"executable":"/t/a-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"door"},"executable":"/t/door-2"}"#,
            "\n",
            "not JSON\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        assert_eq!(executables(messages), [("door".to_owned(), "/t/door-2".into())]);
    }
}
