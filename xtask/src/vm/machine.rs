//! A virtual machine: two processors, no network, and this machine's files, which it can't change.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    vm::{accelerator::Accelerator, alone, kernel::Kernel},
    workspace::Workspace,
};

/// Of memory, some of which holds what is written.
const MEMORY: &str = "4096M";

/// Debian 12 has it with QEMU, later ones in a package of its own.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// Shows the files of the machine below `$1`, read-only, in a mount namespace that ends with the server of `$2`. `$3…` may be
/// on file systems of their own.
const SHARE: &str = r#"
share=$1 socket=$2 server=$3; shift 3
show() { mount --bind "$1" "$share$1" && mount -o remount,bind,ro "$share$1"; }
for directory in / "$@"; do show "$directory" || exit 1; done
exec "$server" --socket-path="$socket" -o source="$share" -o cache=always -o sandbox=chroot
"#;

#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    pub workspace: &'a Workspace,
    pub kernel: &'a Kernel,
    pub accelerator: Accelerator,
    /// When it is ended.
    pub limit: Duration,
}

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The machine's console.
    Console(String),
    /// QEMU, which has nothing to say when all is well.
    Qemu(String),
}

impl Machine<'_> {
    /// Boots, runs `script` as the first process, and shows each line to `hear` until that says that it has heard enough
    /// (`false`), or the machine is off. Errors when it is still on at the end of its time.
    pub fn boot(&self, script: &str, mut hear: impl FnMut(Line) -> bool) -> Result<()> {
        let base = self.workspace.kernels();
        let directory = tempfile::Builder::new().prefix(alone::RUN).tempdir_in(&base)?;
        let script_file = directory.path().join("script.sh");
        fs::write(&script_file, script).context("cannot write the script")?;
        let first = self.kernel.first_file_system(directory.path(), &script_file)?;
        let socket = directory.path().join("files.sock");
        let _files = self.share(&directory, &socket)?;
        let (sender, lines) = mpsc::channel();
        let qemu = self.start(&first, &socket, &sender)?;
        drop(sender);
        self.listen(&lines, &mut hear)?;
        drop(qemu);
        Ok(())
    }

    fn listen(&self, lines: &Receiver<Line>, hear: &mut impl FnMut(Line) -> bool) -> Result<()> {
        let end = Instant::now() + self.limit;
        loop {
            // Without waiting there may always be one more line.
            let left = end.saturating_duration_since(Instant::now());
            let heard =
                if left.is_zero() { Err(RecvTimeoutError::Timeout) } else { lines.recv_timeout(left) };
            match heard {
                Ok(line) => {
                    if !hear(line) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => bail!("still on after {} s", self.limit.as_secs()),
            }
        }
    }

    fn share(&self, directory: &TempDir, socket: &Path) -> Result<Ended> {
        let server = VIRTIOFSD.iter().find(|path| Path::new(path).exists());
        let server = server.context("there is no virtiofsd: install the Debian package of this name")?;
        let share = directory.path().join("files");
        fs::create_dir(&share)?;
        let log = fs::File::create(directory.path().join("files.log"))?;
        let mut command = dying_with_us("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SHARE, "share"]);
        command.args([&share, socket, Path::new(server), self.workspace.root(), self.workspace.target()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Ended(command.spawn().context("cannot start virtiofsd")?);
        let start = Instant::now();
        while !socket.exists() {
            if server.0.try_wait()?.is_some() || start.elapsed() > Duration::from_secs(20) {
                let log = fs::read_to_string(directory.path().join("files.log")).unwrap_or_default();
                bail!("virtiofsd does not start: {log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn start(&self, first: &Path, socket: &Path, lines: &Sender<Line>) -> Result<Ended> {
        let mut qemu = dying_with_us("qemu-system-x86_64");
        qemu.args(self.accelerator.arguments());
        qemu.args(["-smp", "2", "-m", MEMORY, "-nodefaults", "-no-user-config", "-no-reboot"]);
        qemu.args(["-display", "none", "-serial", "stdio"]);
        qemu.args(["-object", &format!("memory-backend-memfd,id=memory,size={MEMORY},share=on")]);
        qemu.args(["-numa", "node,memdev=memory", "-chardev"]);
        qemu.arg(format!("socket,id=files,path={}", socket.display()));
        qemu.args(["-device", "vhost-user-fs-pci,chardev=files,tag=machine"]);
        qemu.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(first);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = Ended(qemu.spawn().context("cannot start QEMU")?);
        read_lines(qemu.0.stdout.take(), lines.clone(), Line::Console);
        read_lines(qemu.0.stderr.take(), lines.clone(), Line::Qemu);
        Ok(qemu)
    }
}

/// However this program ends, what it starts so ends with it.
fn dying_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

fn read_lines(from: Option<impl Read + Send + 'static>, to: Sender<Line>, kind: fn(String) -> Line) {
    thread::spawn(move || {
        let lines = from.into_iter().flat_map(|from| BufReader::new(from).split(b'\n').map_while(Result::ok));
        for line in lines {
            let line = String::from_utf8_lossy(&line);
            if to.send(kind(line.trim_end_matches('\r').to_owned())).is_err() {
                return;
            }
        }
    });
}

/// A process that is ended with its handle.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the console of a kernel's machine is kept.
pub fn console(workspace: &Workspace, kernel: &Kernel) -> PathBuf {
    workspace.kernels().join(format!("console-{}.log", kernel.release))
}
