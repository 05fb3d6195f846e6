//! The graph's database: SQLite in WAL mode, one transaction per flush.
//!
//! A flush is all there or not there at all, whenever the process is killed or the disk is full:
//! the caller then keeps what it could not store and gives it again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::{Statvfs, statvfs};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::error::{Doing, Error, Result};
use crate::graph::{Baseline, Coverage, Direction, Edge, Evidence, Peer, Record, Service, State};
use crate::model::Wall;
use crate::trust::{self, directory_of};

/// Version of the tables below.
const SCHEMA: i64 = 1;
/// "KLgr", so that file(1) and we know whose database it is.
const APPLICATION: i64 = 0x4b4c_6772;
/// Pages of 4 KiB: the database never grows beyond 64 MiB.
const MOST_PAGES: u32 = 16_384;
const MOST_JOURNAL: u32 = 4 << 20;
/// Violations kept; the longest silent ones go.
pub const MOST_VIOLATIONS: usize = 10_000;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE edges (
  direction TEXT NOT NULL, peer TEXT NOT NULL, protocol INTEGER NOT NULL, port INTEGER NOT NULL,
  grouped INTEGER NOT NULL, state TEXT NOT NULL,
  first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL,
  ticks INTEGER NOT NULL, windows INTEGER NOT NULL, days INTEGER NOT NULL,
  connections INTEGER NOT NULL, packets INTEGER NOT NULL, bytes INTEGER NOT NULL,
  handshakes INTEGER NOT NULL,
  mean_pps REAL NOT NULL, deviation_pps REAL NOT NULL, peak_pps REAL NOT NULL,
  PRIMARY KEY (direction, peer, protocol, port)) WITHOUT ROWID;
CREATE TABLE violations (
  direction TEXT NOT NULL, peer TEXT NOT NULL, protocol INTEGER NOT NULL, port INTEGER NOT NULL,
  first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, packets INTEGER NOT NULL,
  PRIMARY KEY (direction, peer, protocol, port)) WITHOUT ROWID;
";

/// How often an edge that the frozen graph lacks was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    pub first_seen: Wall,
    pub last_seen: Wall,
    pub packets: u64,
}

/// Everything the database holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kept {
    pub records: BTreeMap<Edge, Record>,
    pub violations: BTreeMap<Edge, Violation>,
    pub coverage: Coverage,
    /// What commands put in force, in the operator's words.
    pub mode: Option<String>,
}

/// One flush.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Edges that changed; `None`: removed.
    pub edges: &'a [(Edge, Option<Record>)],
    pub violations: &'a [(Edge, Option<Violation>)],
    pub coverage: Option<&'a Coverage>,
    /// `Some(None)`: nothing is in force any more.
    pub mode: Option<Option<&'a str>>,
}

/// Why a database is not gone by.
struct Refusal {
    why: Error,
    /// It was ours and is of no use any more.
    is_over: bool,
}

impl From<Error> for Refusal {
    fn from(why: Error) -> Self {
        Self {
            why,
            is_over: false,
        }
    }
}

#[derive(Debug)]
pub struct GraphStore {
    db: Connection,
    path: String,
}

impl GraphStore {
    /// Opens the database of this node, making it where there is none.
    pub fn open(path: &Path, node: &str) -> Result<Self> {
        Self::open_bounded(path, node, MOST_PAGES)
    }

    /// The same, but one that is damaged, another host's or of another version is set aside, for a new
    /// one: why, if so.
    pub fn open_or_start_over(path: &Path, node: &str) -> Result<(Self, Option<String>)> {
        let whole = |store: Self| store.try_load().map(|_| store);
        match Self::try_open(path, node, MOST_PAGES).and_then(whole) {
            Ok(store) => Ok((store, None)),
            Err(refusal) if refusal.is_over => {
                set_aside(path).doing(|| format!("setting {} aside", path.display()))?;
                Ok((Self::open(path, node)?, Some(refusal.why.to_string())))
            }
            Err(refusal) => Err(refusal.why),
        }
    }

    pub(super) fn open_bounded(path: &Path, node: &str, pages: u32) -> Result<Self> {
        Self::try_open(path, node, pages).map_err(|refusal| refusal.why)
    }

    fn try_open(path: &Path, node: &str, pages: u32) -> Result<Self, Refusal> {
        let dir = directory_of(path);
        trust::make_dir(dir).doing(|| format!("making {}", dir.display()))?;
        let name = path.display().to_string();
        // SQLite would ask the umask, and makes its journals like the database. Where this fails it
        // is the one to tell.
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        drop(made);
        let failed = |error| failed(&name, "opening", &error);
        let mut db = Connection::open(path).map_err(failed)?;
        configure(&db, pages).map_err(failed)?;
        prepare(&mut db, &name, node)?;
        // Earlier versions left it to the umask.
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .doing(|| format!("keeping {name} from others"))?;
        Ok(Self { db, path: name })
    }

    /// One that ends with this process.
    pub fn in_memory(node: &str) -> Result<Self> {
        let name = "a database in memory".to_owned();
        let failed = |error| failed(&name, "opening", &error).why;
        let mut db = Connection::open_in_memory().map_err(failed)?;
        create(&mut db, node).map_err(failed)?;
        Ok(Self { db, path: name })
    }

    #[cfg(test)]
    pub(super) fn rows_written(&self) -> u64 {
        self.db.total_changes()
    }

    pub fn load(&self) -> Result<Kept> {
        self.try_load().map_err(|refusal| refusal.why)
    }

    fn try_load(&self) -> Result<Kept, Refusal> {
        self.read()
            .map_err(|error| failed(&self.path, "reading", &error))
    }

    fn read(&self) -> rusqlite::Result<Kept> {
        let mut kept = Kept::default();
        let mut edges = self.db.prepare(
            "SELECT direction, peer, protocol, port, grouped, state, first_seen, last_seen, ticks, windows, days, \
             connections, packets, bytes, handshakes, mean_pps, deviation_pps, peak_pps FROM edges",
        )?;
        let mut rows = edges.query([])?;
        while let Some(row) = rows.next()? {
            // A row this version cannot read is one it did not write: left alone, not guessed at.
            if let (Some(edge), Some(record)) = (edge_of(row, row.get(4)?)?, record_of(row)?) {
                kept.records.insert(edge, record);
            }
        }
        let mut violations = self.db.prepare(
            "SELECT direction, peer, protocol, port, first_seen, last_seen, packets FROM violations",
        )?;
        let mut rows = violations.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(edge) = edge_of(row, false)? {
                let violation = Violation {
                    first_seen: Wall::from_secs(row.get(4)?),
                    last_seen: Wall::from_secs(row.get(5)?),
                    packets: row.get(6)?,
                };
                kept.violations.insert(edge, violation);
            }
        }
        kept.mode = meta(&self.db, "mode")?;
        if let Some(text) = meta(&self.db, "coverage")? {
            kept.coverage = coverage_of(&text).unwrap_or_default();
        }
        Ok(kept)
    }

    /// Stores all of a batch or none of it.
    pub fn flush(&mut self, batch: &Batch<'_>) -> Result<()> {
        let path = self.path.clone();
        self.write(batch)
            .map_err(|error| failed(&path, "storing the graph in", &error).why)
    }

    fn write(&mut self, batch: &Batch<'_>) -> rusqlite::Result<()> {
        let change = self.db.transaction()?;
        put_edges(&change, batch.edges)?;
        put_violations(&change, batch.violations)?;
        if let Some(coverage) = batch.coverage {
            put_meta(&change, "coverage", Some(&coverage_text(coverage)))?;
        }
        if let Some(mode) = batch.mode {
            put_meta(&change, "mode", mode)?;
        }
        change.commit()
    }
}

/// With the journals that go with it, so that it can be looked at.
fn set_aside(path: &Path) -> std::io::Result<()> {
    // The database last: without it, nobody would look for the others.
    for suffix in ["-wal", "-shm", ""] {
        let name = |middle: &str| format!("{}{middle}{suffix}", path.display());
        match fs::rename(name(""), name(".damaged")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// How an operator starts over.
const START_OVER: &str = "'kernloom iq --graph --fresh-state' sets it aside and starts over";

fn failed(path: &str, doing: &str, error: &rusqlite::Error) -> Refusal {
    let code = error.sqlite_error_code();
    let is_over = matches!(
        code,
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt)
    );
    // Where there is no room for what it keeps beside the database, SQLite does not say so.
    let no_room = code == Some(rusqlite::ErrorCode::SystemIoFailure) && is_full(Path::new(path));
    let mend = match code {
        _ if no_room => "; the disk is full: make room",
        Some(rusqlite::ErrorCode::DiskFull) => {
            "; the disk, or the 64 MiB the graph may take, is full: make room; what was learned is kept in memory until then"
        }
        _ if is_over => &format!("; {START_OVER}; the frozen graph is in its own file and stays"),
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::PermissionDenied) => {
            "; run it with sudo, or give --store a file where it can be written"
        }
        _ => "",
    };
    Refusal {
        why: Error::world(format!("{doing} {path}: {error}{mend}")),
        is_over,
    }
}

/// Whether there is less room than the journal and its index take at least.
fn is_full(path: &Path) -> bool {
    let room = statvfs(directory_of(path));
    // Of widths that differ between architectures.
    let free =
        |room: Statvfs| u128::from(room.blocks_available()) * u128::from(room.fragment_size());
    room.map(free).is_ok_and(|free| free < 128 * 1_024)
}

fn configure(db: &Connection, pages: u32) -> rusqlite::Result<()> {
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // In WAL mode, NORMAL loses at most the last flush to a power cut, and never consistency.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    db.pragma_update_and_check(None, "journal_size_limit", MOST_JOURNAL, |_| Ok(()))
}

fn prepare(db: &mut Connection, path: &str, node: &str) -> Result<(), Refusal> {
    let found = |error| failed(path, "opening", &error);
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = number("user_version").map_err(found)?;
    let application = number("application_id").map_err(found)?;
    let over = |why| Refusal {
        why: Error::operator(why),
        is_over: true,
    };
    match (version, application) {
        (0, 0) => create(db, node).map_err(found),
        (SCHEMA, APPLICATION) => {
            let theirs = meta(db, "node").map_err(found)?;
            if theirs.as_deref() == Some(node) {
                return Ok(());
            }
            Err(over(format!(
                "{path} holds the graph of another host ({}; this one is {node}): a copied disk? {START_OVER}",
                theirs.unwrap_or_default()
            )))
        }
        (_, APPLICATION) => Err(over(format!(
            "{path} has schema {version}, this binary speaks {SCHEMA}; use the version that wrote it, or \
             {START_OVER}"
        ))),
        _ => Err(Refusal::from(Error::operator(format!(
            "{path} is another program's database; give --store another file"
        )))),
    }
}

fn create(db: &mut Connection, node: &str) -> rusqlite::Result<()> {
    let change = db.transaction()?;
    change.execute_batch(TABLES)?;
    put_meta(&change, "node", Some(node))?;
    change.pragma_update(None, "user_version", SCHEMA)?;
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.commit()
}

fn meta(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
        row.get(0)
    })
    .optional()
}

fn put_meta(change: &Transaction<'_>, name: &str, value: Option<&str>) -> rusqlite::Result<()> {
    match value {
        Some(value) => change.execute(
            "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
            [name, value],
        )?,
        None => change.execute("DELETE FROM meta WHERE name = ?1", [name])?,
    };
    Ok(())
}

fn put_edges(change: &Transaction<'_>, edges: &[(Edge, Option<Record>)]) -> rusqlite::Result<()> {
    let mut put = change.prepare(
        "INSERT OR REPLACE INTO edges VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)",
    )?;
    let mut remove = change.prepare(
        "DELETE FROM edges WHERE direction = ?1 AND peer = ?2 AND protocol = ?3 AND port = ?4",
    )?;
    for (edge, record) in edges {
        let (direction, peer) = (edge.direction.name(), edge.peer.to_string());
        let (protocol, port) = (edge.service.protocol, edge.service.port);
        let Some(record) = record else {
            remove.execute(params![direction, peer, protocol, port])?;
            continue;
        };
        put.execute(params![
            direction,
            peer,
            protocol,
            port,
            matches!(edge.peer, Peer::Group(_)),
            record.state.name(),
            record.first_seen.as_secs(),
            record.last_seen.as_secs(),
            record.ticks,
            record.windows,
            record.days,
            record.seen.connections,
            record.seen.packets,
            record.seen.bytes,
            record.seen.handshakes,
            record.rate.mean_pps,
            record.rate.deviation_pps,
            record.rate.peak_pps,
        ])?;
    }
    Ok(())
}

fn put_violations(
    change: &Transaction<'_>,
    violations: &[(Edge, Option<Violation>)],
) -> rusqlite::Result<()> {
    let mut put =
        change.prepare("INSERT OR REPLACE INTO violations VALUES (?1,?2,?3,?4,?5,?6,?7)")?;
    let mut remove = change.prepare(
        "DELETE FROM violations WHERE direction = ?1 AND peer = ?2 AND protocol = ?3 AND port = ?4",
    )?;
    for (edge, violation) in violations {
        let (direction, peer) = (edge.direction.name(), edge.peer.to_string());
        let (protocol, port) = (edge.service.protocol, edge.service.port);
        match violation {
            Some(violation) => put.execute(params![
                direction,
                peer,
                protocol,
                port,
                violation.first_seen.as_secs(),
                violation.last_seen.as_secs(),
                violation.packets,
            ])?,
            None => remove.execute(params![direction, peer, protocol, port])?,
        };
    }
    if !violations.is_empty() {
        change.execute(
            "DELETE FROM violations WHERE last_seen < (SELECT min(last_seen) FROM \
             (SELECT last_seen FROM violations ORDER BY last_seen DESC LIMIT ?1))",
            [MOST_VIOLATIONS],
        )?;
    }
    Ok(())
}

fn edge_of(row: &Row<'_>, grouped: bool) -> rusqlite::Result<Option<Edge>> {
    let (direction, peer): (String, String) = (row.get(0)?, row.get(1)?);
    let service = Service::new(row.get(2)?, row.get(3)?);
    let (Ok(direction), Ok(peer)) = (
        direction.parse::<Direction>(),
        Peer::parse(&peer, |_| grouped),
    ) else {
        return Ok(None);
    };
    Ok(Some(Edge {
        direction,
        peer,
        service,
    }))
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<Option<Record>> {
    let state: String = row.get(5)?;
    let Some(state) = State::from_name(&state) else {
        return Ok(None);
    };
    let ticks = row.get(8)?;
    Ok(Some(Record {
        state,
        first_seen: Wall::from_secs(row.get(6)?),
        last_seen: Wall::from_secs(row.get(7)?),
        ticks,
        windows: row.get(9)?,
        days: row.get(10)?,
        seen: Evidence {
            connections: row.get(11)?,
            packets: row.get(12)?,
            bytes: row.get(13)?,
            handshakes: row.get(14)?,
        },
        rate: Baseline {
            mean_pps: row.get(15)?,
            deviation_pps: row.get(16)?,
            peak_pps: row.get(17)?,
            ticks,
        },
        teacher: None,
    }))
}

fn coverage_text(coverage: &Coverage) -> String {
    let [a, b, c] = coverage.hours;
    let last = coverage.last.map_or(0, Wall::as_secs);
    format!("{} {last} {a} {b} {c}", coverage.days)
}

fn coverage_of(text: &str) -> Option<Coverage> {
    let numbers: Vec<u64> = text
        .split(' ')
        .map_while(|word| word.parse().ok())
        .collect();
    let [days, last, a, b, c] = numbers[..] else {
        return None;
    };
    Some(Coverage {
        days,
        hours: [a, b, c],
        last: (last > 0).then(|| Wall::from_secs(last)),
    })
}
