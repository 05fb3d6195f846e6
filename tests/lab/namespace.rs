//! One network namespace: created under `/run/netns`, entered by children, deleted on drop.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::process::Process;
use super::{LabError, Result};

/// Where `ip netns` keeps the names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A named network namespace. Its address on the lab's network is known to [`super::Lab`].
pub(crate) struct Namespace {
    name: String,
    handle: Arc<File>,
}

impl Namespace {
    /// Creates the namespace and brings its loopback up.
    pub(crate) fn create(name: String) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = format!("{NETNS_DIR}/{name}");
        let handle = match File::open(&path) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                delete(&name);
                return Err(LabError::new(format!("opening {path}"), error));
            }
        };
        let namespace = Self { name, handle };
        // Duplicate address detection would delay every IPv6 address by a second.
        namespace.set("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside, and that dies with the thread that spawns it.
    ///
    /// Unlike `ip netns exec` this leaves the mounts alone, so that bpffs stays visible.
    pub(crate) fn command(&self, program: &str) -> Command {
        let handle = Arc::clone(&self.handle);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes two system calls (setns, prctl) on a
        // descriptor it owns, and neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                setns(&handle, CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
        command
    }

    /// Starts a program inside; see [`Process`].
    pub(crate) fn spawn(&self, program: &str, args: &[&str]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(args);
        Process::spawn(command)
    }

    /// Runs a program inside to its end. Anything but success is an error with its output.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        run(self.command(program).args(args))
    }

    /// Runs `work` in a thread that lives inside: its sockets, attachments and /proc/net are there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let doing = || format!("entering {}", self.name);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET)
                    .map_err(|e| LabError::new(doing(), e))?;
                work()
            });
            inside
                .join()
                .map_err(|_| LabError::new(doing(), "the work panicked"))?
        })
    }

    /// Feeds lines to `ip -batch` inside. One process whatever the number of lines.
    pub(crate) fn ip(&self, lines: &str) -> Result<String> {
        feed(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            lines,
        )
    }

    /// Feeds a rule set to `nft` inside.
    pub(crate) fn nft(&self, rules: &str) -> Result<String> {
        feed(self.command("nft").args(["-f", "-"]), rules)
    }

    /// Writes a sysctl of the namespace, e.g. `net/ipv4/ip_forward`.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.enter(|| {
            std::fs::write(&path, value).map_err(|e| LabError::new(format!("writing {path}"), e))
        })
    }

    /// Counters of a device inside.
    pub(crate) fn device(&self, device: &str) -> Result<DeviceCounters> {
        let path = "/proc/thread-self/net/dev";
        let table = self.enter(|| {
            std::fs::read_to_string(path).map_err(|e| LabError::new(format!("reading {path}"), e))
        })?;
        DeviceCounters::find(&table, device).ok_or_else(|| {
            LabError::new(
                format!("counting in {}", self.name),
                format!("no device {device}"),
            )
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Packets a device received and sent since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceCounters {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
}

impl DeviceCounters {
    /// Reads one line of /proc/net/dev: eight receive columns, then the transmit ones.
    fn find(table: &str, device: &str) -> Option<Self> {
        let (_, columns) = table
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == device)?;
        let mut columns = columns.split_whitespace();
        let rx_packets = columns.nth(1)?.parse().ok()?;
        let tx_packets = columns.nth(7)?.parse().ok()?;
        Some(Self {
            rx_packets,
            tx_packets,
        })
    }
}

/// Deletes a name; also used by the sweep. Says so when it cannot: nothing may stay unnoticed.
pub(crate) fn delete(name: &str) {
    if let Err(error) = run(Command::new("ip").args(["netns", "del", name])) {
        eprintln!("lab: {error}");
    }
}

/// Runs a command to its end and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|e| LabError::new(describe(command), e))?;
    finished(&describe(command), &output)
}

fn feed(command: &mut Command, input: &str) -> Result<String> {
    let what = describe(command);
    let fail = |e: std::io::Error| LabError::new(what.clone(), e);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(fail)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that refuses the first line may close the pipe: its message says more.
        let _refused = pipe
            .write_all(input.as_bytes())
            .and_then(|()| pipe.write_all(b"\n"));
    }
    finished(&what, &child.wait_with_output().map_err(fail)?)
}

fn finished(what: &str, output: &std::process::Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::new(
        what,
        format!("{}: {}", output.status, said.trim()),
    ))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
