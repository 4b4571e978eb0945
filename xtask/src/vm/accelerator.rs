//! What runs the processors of a machine: the real ones, or QEMU.

use std::time::Duration;

use anyhow::Result;

use crate::{
    step::{note, step},
    vm::{
        kernel::Kernel,
        machine::{Line, Machine},
    },
    workspace::Workspace,
};

/// How long a kernel may take to its first process.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// QEMU translates the instructions: ten times slower, anywhere.
    Emulation,
}

impl Accelerator {
    /// KVM, if it boots `kernel`. (Where this is a virtual machine itself, it may be there and not be able to.)
    pub fn find(workspace: &Workspace, kernel: &Kernel) -> Result<Self> {
        step("try KVM", || {
            let machine = Machine { workspace, kernel, accelerator: Self::Kvm, limit: PATIENCE };
            let (mut works, mut trouble) = (false, None);
            let booted = machine.boot("", |line| {
                match line {
                    Line::Console(text) => works = text.contains("vm: up"),
                    Line::Qemu(text) => trouble = Some(text),
                }
                !works && trouble.is_none()
            });
            if works {
                note("it works");
                return Ok(Self::Kvm);
            }
            let trouble = trouble.or_else(|| Some(booted.err()?.to_string()));
            note(format!("it does not work here ({}): QEMU emulates", trouble.unwrap_or_default()));
            Ok(Self::Emulation)
        })
    }

    /// What the tests of one kernel take at most. (A machine with 2 processors, on which others build as well, took 17 minutes to emulate one.)
    pub fn limit(self) -> Duration {
        Duration::from_secs(60 * if self == Self::Kvm { 15 } else { 60 })
    }

    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}
