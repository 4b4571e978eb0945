//! One kernel: its image and modules, unpacked below `target` and nowhere else, and the first file system it sees.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    process,
    step::step,
    vm::{alone, debian::Archive},
};

/// What the first file system mounts, for which kernels need modules: the machine's files, and a layer over them.
const FIRST_MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];

#[derive(Debug)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    directory: PathBuf,
}

impl Kernel {
    /// Downloads and unpacks it into `kernels`, unless it is there.
    pub fn fetch(archive: &Archive, kernels: &Path, release: &str) -> Result<Self> {
        let kernel = Self { release: release.to_owned(), directory: kernels.join(release) };
        if !kernel.directory.exists() {
            step(format!("download Linux {release}"), || kernel.unpack(archive, kernels))?;
        }
        Ok(kernel)
    }

    fn unpack(&self, archive: &Archive, kernels: &Path) -> Result<()> {
        // Takes its name once it is complete.
        let unpacked = tempfile::Builder::new().prefix(alone::UNPACKED).tempdir_in(kernels)?;
        archive.download(&self.release, unpacked.path())?;
        for entry in fs::read_dir(&unpacked)?.collect::<Result<Vec<_>, _>>()? {
            process::run_quietly(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(unpacked.path()))?;
            fs::remove_file(entry.path())?;
        }
        let root = modules_root(unpacked.path());
        process::run_quietly(Command::new("depmod").arg("-b").arg(root).arg(&self.release))?;
        fs::rename(unpacked.keep(), &self.directory).context("cannot rename")
    }

    pub fn image(&self) -> PathBuf {
        let older = self.directory.join(format!("boot/vmlinuz-{}", self.release));
        if older.exists() { older } else { self.modules().join("vmlinuz") }
    }

    pub fn modules(&self) -> PathBuf {
        modules_root(&self.directory).join("lib/modules").join(&self.release)
    }

    /// Writes the first file system into `directory`: it mounts the machine's files, and runs `script`, one of them.
    pub fn first_file_system(&self, directory: &Path, script: &Path) -> Result<PathBuf> {
        let root = directory.join("first");
        for needed in ["bin", "dev", "lower", "modules", "proc", "root", "sys", "upper"] {
            fs::create_dir_all(root.join(needed))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).context("cannot copy busybox")?;
        let init = include_str!("init.sh").replace("@SCRIPT@", &script.display().to_string());
        fs::write(root.join("init"), init)?;
        process::run_quietly(Command::new("chmod").arg("755").arg(root.join("init")))?;
        for (number, module) in self.first_modules()?.iter().enumerate() {
            let copy = root.join(format!("modules/{number:02}.ko"));
            if module.ends_with(".xz") {
                process::run_quietly(
                    Command::new("sh").args(["-c", r#"xz -dc "$0" >"$1""#, module]).arg(copy),
                )?;
            } else {
                fs::copy(module, copy).with_context(|| format!("cannot copy {module}"))?;
            }
        }
        let archive = directory.join("first.cpio");
        let pack = r#"find . | busybox cpio -o -H newc >"$0""#;
        process::run_quietly(Command::new("sh").args(["-c", pack]).arg(&archive).current_dir(&root))?;
        Ok(archive)
    }

    /// The files of [`FIRST_MODULES`] that are not built in, and of what they need, in the order in which they are loaded.
    fn first_modules(&self) -> Result<Vec<String>> {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(modules_root(&self.directory)).args([
            "-S",
            &self.release,
            "--show-depends",
            "-a",
        ]);
        let mut files = Vec::new();
        for line in process::read(modprobe.args(FIRST_MODULES))?.lines() {
            if let Some(file) = line.strip_prefix("insmod ").map(str::trim).map(str::to_owned)
                && !files.contains(&file)
            {
                files.push(file);
            }
        }
        Ok(files)
    }
}

/// Newer packages have all below `usr`.
fn modules_root(directory: &Path) -> PathBuf {
    if directory.join("lib/modules").exists() { directory.to_owned() } else { directory.join("usr") }
}
