//! The built binary's `shield` commands on real interfaces.

mod attach;
mod beside;
mod figures;
mod policy;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::lab::{Family, Lab, Plan, private};
use crate::seat::documented as json;

const BINARY: &str = env!("CARGO_BIN_EXE_kernloom");
const SOON: Duration = Duration::from_secs(20);

/// A lab with kernloom at hand; nobody's SSH session, unless a test makes one.
struct Bench {
    lab: Lab,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Bench {
    fn new(name: &str) -> Option<Self> {
        let plan = Plan {
            clients: &["one", "two"],
            office_hosts: 0,
        };
        Lab::for_test(name, &plan).map(|lab| Self { lab })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.server().net.command(BINARY);
        command
            .env_remove("SSH_CONNECTION")
            .arg("--bpffs")
            .arg(self.lab.bpffs())
            .arg("--run-dir")
            .arg(self.lab.run_dir())
            .args(args);
        command
    }

    fn say(&self, args: &[&str]) -> Said {
        said(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// The same without any right, by a copy that everybody may run.
    fn say_as_nobody(&self, args: &[&str]) -> Said {
        let copy = self.lab.dir().join("kernloom");
        std::fs::copy(BINARY, &copy).unwrap();
        // Not by the command itself: the namespace is entered with rights.
        let mut command = self.lab.server().net.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(copy);
        private(&mut command, &self.lab);
        said(command.args(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Must succeed; what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let said = self.say(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    /// Must be refused with that code; what it said.
    fn refused(&self, args: &[&str], code: i32) -> String {
        let said = self.say(args);
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        said.err
    }

    fn feed(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        said(child.wait_with_output().unwrap())
    }

    fn pings(&self, client: &str, family: Family) -> bool {
        let server = self.lab.server();
        let target = match family {
            Family::V4 => server.v4.to_string(),
            Family::V6 => server.v6.to_string(),
        };
        let net = &self.lab.client(client).unwrap().net;
        net.run("ping", &["-n", "-q", "-c1", "-W1", &target])
            .is_ok()
    }

    fn v4(&self, client: &str) -> String {
        self.lab.source(client, Family::V4).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
