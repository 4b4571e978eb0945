//! The few bpf(2) calls that probing attach kinds takes, on programs of two instructions.
//! Numbers and layouts are those of <linux/bpf.h>.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;

/// A program that returns a constant.
#[derive(Debug, Clone, Copy)]
pub struct Constant {
    program_type: u32,
    attach_type: u32,
    value: i32,
}

/// A classifier that leaves every packet to the next one (`TC_ACT_UNSPEC`).
pub const PASS_CLASSIFIER: Constant = Constant { program_type: 3, attach_type: 0, value: -1 };
/// `cgroup/getpeername4` and `6` that change nothing.
pub const PASS_GETPEERNAME4: Constant = Constant { program_type: 18, attach_type: 29, value: 1 };
pub const PASS_GETPEERNAME6: Constant = Constant { program_type: 18, attach_type: 30, value: 1 };

/// Where a link goes; the program is detached when the link is closed.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The ingress of an interface of the current network namespace, by index (TCX, Linux 6.6).
    Ingress(u32),
    Cgroup(BorrowedFd<'a>),
}

#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`. The kernel takes what is not given for zero.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// The start of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

impl Constant {
    /// # Errors
    /// `EPERM` without `CAP_BPF`, `EINVAL` when the kernel lacks the type.
    pub fn load(self) -> io::Result<OwnedFd> {
        let instructions = [
            // r0 = value; exit
            Instruction { code: 0xb7, registers: 0, offset: 0, immediate: self.value },
            Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
        ];
        let license = c"Dual MIT/GPL";
        let attributes = ProgLoad {
            program_type: self.program_type,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            expected_attach_type: self.attach_type,
            ..ProgLoad::default()
        };
        // SAFETY: `attributes` has the layout of the request, and the instructions and the license that it points to
        // outlive the call.
        unsafe { bpf(PROG_LOAD, &attributes) }
    }

    /// Attaches the program by a link.
    ///
    /// # Errors
    /// `EINVAL` when the kernel lacks the attach kind.
    pub fn attach(self, program: BorrowedFd<'_>, place: Place<'_>) -> io::Result<OwnedFd> {
        const TCX_INGRESS: u32 = 46;
        let (target, attach_type) = match place {
            Place::Ingress(index) => (index, TCX_INGRESS),
            Place::Cgroup(cgroup) => (cgroup.as_raw_fd().cast_unsigned(), self.attach_type),
        };
        let program = program.as_raw_fd().cast_unsigned();
        let attributes = LinkCreate { program, target, attach_type, flags: 0 };
        // SAFETY: `attributes` has the layout of the request and holds no pointers.
        unsafe { bpf(LINK_CREATE, &attributes) }
    }
}

/// A bpf(2) call that makes a file descriptor.
///
/// # Safety
/// `attributes` has the layout that `command` expects, and what it points to is valid during the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live reference; the caller vouches for what is in them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: these commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
