//! A laboratory of network namespaces for the end-to-end tests and the demo.
//!
//! ```text
//!   office (many hosts)                                             all of it on one kernel,
//!      | 192.168.77.0/24, fd78::/64                                 real packets, real tools
//!   client "nat" 10.77.1.2, fd77:1::2  (masquerades) --+
//!   client 2     10.77.2.2, fd77:2::2  ----------------+-- router --- server
//!   client 3     10.77.3.2, fd77:3::2  ----------------+     10.77.0.2, fd77::2 on eth0
//! ```
//!
//! Each client is a namespace with its own /24 and /64, so that what kernloom decides about one
//! cannot touch another. The first one is the NAT client `nat`: the hosts of the office reach the
//! server through real masquerading and share its one address per family. The server's `eth0` is
//! a veth: native XDP attaches to it and benign TCP survives (the kernel then splits large frames).
//!
//! ```ignore
//! let Some(lab) = Lab::for_test("limits", &Plan { clients: &["flood"], office_hosts: 4 }) else {
//!     return; // SKIPPED was printed; an error instead where KERNLOOM_REQUIRE_ROOT is set
//! };
//! let web = WebServer::start(&lab)?;
//! let iq = Kernloom::iq(&lab, binary, &["--profile=web-server"])?;  // returns once attached
//! let load = Load::start(&lab, LoadPlan { requests: 40, .. })?;     // real curl, counted
//! let attack = Attack::launch(&lab, "flood", Assault::SynFlood4 { packets: 9_000 })?;
//! let first = iq.wait_transition(Duration::from_secs(3), lab.source("flood", Family::V4)?, ..)?;
//! ```
//!
//! - [`Lab`]: the namespaces, addresses and private directories. Labs of one process run one at a
//!   time: two cores cannot measure two floods.
//! - [`Namespace`]: `run`, `spawn`, `command`, `enter` (a closure inside), `device` (counters).
//! - [`Process`]: a child with its output stamped per line; ends on drop.
//! - [`WebServer`], [`Load`], [`Attack`], [`Kernloom`], [`Transition`]: see their modules.
//! - [`wait_until`]: the only way to wait. There is no sleep to call.
//!
//! Nothing stays behind: guards end children by pid and delete namespaces, pins and directories on
//! drop, also on panic and after SIGINT or SIGTERM (every wait then fails and the guards drop). The
//! kernel ends children of a killed lab, and the next [`Lab::new`] sweeps the names it left.
#![allow(
    dead_code,
    reason = "the tests and the demo each use their own part of the lab"
)]
#![allow(
    unused_imports,
    reason = "the tests and the demo each use their own part of the lab"
)]

mod attack;
mod kernloom;
mod load;
mod namespace;
mod nginx;
mod process;
mod sweep;
mod topology;
mod transition;
mod wait;

use std::fmt::Display;
use std::io::{Write, stderr};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use attack::{Assault, Attack, Flood};
pub(crate) use kernloom::{Kernloom, Said, private};
pub(crate) use load::{Load, LoadPlan, Tally};
pub(crate) use namespace::{DeviceCounters, Namespace};
pub(crate) use nginx::WebServer;
pub(crate) use process::{Line, Process, Stream, ended_well};
pub(crate) use sweep::{leftovers, sweep_own};
pub(crate) use transition::{Stage, Transition};
pub(crate) use wait::{end_waits_on_signal, interrupted, now, wait_until};

/// What the lab was doing, and why it could not.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub(crate) struct LabError {
    doing: String,
    why: String,
}

impl LabError {
    pub(crate) fn new(doing: impl Into<String>, why: impl Display) -> Self {
        Self {
            doing: doing.into(),
            why: why.to_string(),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, LabError>;

/// Which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Who takes part besides the server, the router and the NAT client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// Names of clients with an address of their own, at most 8.
    pub(crate) clients: &'a [&'a str],
    /// Hosts behind the NAT client, each with an address per family. 0 leaves the NAT client out.
    pub(crate) office_hosts: u8,
}

/// Name of the client that masquerades for the office.
pub(crate) const NAT: &str = "nat";

/// A namespace with an address per family.
pub(crate) struct Host {
    pub(crate) net: Namespace,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// The built laboratory. Declare it before what runs in it: what is declared last is dropped first.
pub(crate) struct Lab {
    // Dropped in this order: pins, so that XDP detaches; namespaces; the turn.
    places: Places,
    server: Host,
    clients: Vec<(String, Host)>,
    office: Option<Namespace>,
    router: Namespace,
    office_hosts: u8,
    _turn: MutexGuard<'static, ()>,
}

/// One lab at a time in a process.
static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// Builds the lab and waits until every client reaches the server over both families.
    pub(crate) fn new(name: &str, plan: &Plan) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::new(
                "building the lab",
                "network namespaces need root",
            ));
        }
        end_waits_on_signal();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        sweep::sweep_dead();
        let stem = sweep::stem(name);
        let places = Places::create(&stem)?;
        let parts = topology::build(&stem, plan)?;
        let lab = Self {
            server: parts.server,
            clients: parts.clients,
            office: parts.office,
            router: parts.router,
            office_hosts: plan.office_hosts,
            places,
            _turn: turn,
        };
        topology::wait_reachable(&lab)?;
        Ok(lab)
    }

    /// For tests: `None` after printing SKIPPED when the user is not root.
    ///
    /// # Panics
    /// When the lab cannot be built for another reason, or root is required by the environment
    /// variable `KERNLOOM_REQUIRE_ROOT`, which continuous integration sets.
    pub(crate) fn for_test(name: &str, plan: &Plan) -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        if !root && std::env::var_os("KERNLOOM_REQUIRE_ROOT").is_none() {
            // Not eprintln: the test harness would swallow it, and a skip must be seen.
            let _unseen = writeln!(stderr(), "SKIPPED {name}: network namespaces need root");
            return None;
        }
        match Self::new(name, plan) {
            Ok(lab) => Some(lab),
            Err(error) => panic!("{error}"),
        }
    }

    /// The protected host. Its interface is `eth0`.
    pub(crate) fn server(&self) -> &Host {
        &self.server
    }

    /// The host that forwards between everyone; its device towards the server is `server`.
    pub(crate) fn router(&self) -> &Namespace {
        &self.router
    }

    /// A client by its name in the plan, or [`NAT`]. Its interface is `eth0`.
    pub(crate) fn client(&self, name: &str) -> Result<&Host> {
        let found = self.clients.iter().find(|(known, _)| known == name);
        found
            .map(|(_, host)| host)
            .ok_or_else(|| LabError::new("finding a client", name))
    }

    /// The namespace whose addresses are the hosts behind the NAT client.
    pub(crate) fn office(&self) -> Result<&Namespace> {
        self.office
            .as_ref()
            .ok_or_else(|| LabError::new("finding the office", "plan has no hosts"))
    }

    /// How many hosts the office has.
    pub(crate) fn office_hosts(&self) -> u8 {
        self.office_hosts
    }

    /// The source as kernloom prints it: the IPv4 address, or the IPv6 /64.
    pub(crate) fn source(&self, client: &str, family: Family) -> Result<String> {
        let host = self.client(client)?;
        Ok(match family {
            Family::V4 => host.v4.to_string(),
            Family::V6 => topology::prefix64(host.v6),
        })
    }

    /// `--bpffs` of this lab. Made by kernloom, removed with the lab: the links in it then detach.
    pub(crate) fn bpffs(&self) -> &Path {
        &self.places.bpffs
    }

    /// `--run-dir` of this lab.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.places.run
    }

    /// `--state-dir` of this lab; made by kernloom.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.places.dir.join("state")
    }

    /// `--config` of this lab: an empty file, so that the host's own is not read.
    pub(crate) fn config(&self) -> PathBuf {
        self.places.dir.join("kernloom.toml")
    }

    /// A directory for files of this lab, e.g. state and profiles.
    pub(crate) fn dir(&self) -> &Path {
        &self.places.dir
    }
}

/// The lab's directories; removed on drop.
struct Places {
    bpffs: PathBuf,
    dir: PathBuf,
    run: PathBuf,
}

impl Places {
    fn create(stem: &str) -> Result<Self> {
        let dir = Path::new(sweep::DIRS).join(stem);
        let run = dir.join("run");
        let bpffs = Path::new(sweep::BPFFS).join(stem);
        let places = Self { bpffs, dir, run };
        std::fs::create_dir_all(&places.run)
            .map_err(|e| LabError::new(format!("creating {}", places.run.display()), e))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&places.run, private)
            .map_err(|e| LabError::new(format!("closing {}", places.run.display()), e))?;
        let config = places.dir.join("kernloom.toml");
        std::fs::write(&config, "")
            .map_err(|e| LabError::new(format!("creating {}", config.display()), e))?;
        Ok(places)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        sweep::remove(&self.bpffs);
        sweep::remove(&self.dir);
    }
}
