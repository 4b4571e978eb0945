//! Where things are in a checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

/// A checkout of redirector and the directory its builds go to.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The checkout this xtask belongs to. Builds go to `$CARGO_TARGET_DIR`, or to `target`.
    pub fn current() -> Self {
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root: PathBuf = Path::new(&package).parent().unwrap_or(Path::new(".")).into();
        let target = env::current_dir()
            .unwrap_or_else(|_| root.clone())
            .join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from));
        Self { root, target }
    }

    /// The checkout at `root`, which builds into its own `target`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into(), target: root.join("target") }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where builds go.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What cargo writes while it builds the eBPF half.
    pub fn ebpf_target(&self) -> PathBuf {
        self.target.join("ebpf")
    }

    /// The eBPF object, which `redirector/build.rs` embeds.
    pub fn ebpf_object(&self) -> PathBuf {
        self.ebpf_target().join("redirector.o")
    }

    /// What the tests run against and no package has.
    pub fn test_tools(&self) -> PathBuf {
        self.target.join("test-tools")
    }

    /// The pictures that the demo takes.
    pub fn demo_pictures(&self) -> PathBuf {
        self.target.join("demo")
    }

    /// Other kernels, and what runs in their machines.
    pub fn kernels(&self) -> PathBuf {
        self.target.join("kernels")
    }

    pub fn release_binary(&self) -> PathBuf {
        self.target.join("release/redirector")
    }
}
