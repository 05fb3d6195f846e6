//! Everyday traffic with the tools that make it, while attacks go on beside it: who is held, and
//! what is lost.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernloom::model::Source;
use kernloom::profile::{Overrides, Profile};
use kernloom::telemetry::Sample;

use super::attacks::{WINDOWS, windows};
use super::daemon::json;
use super::iq::{SOON, ask};
use super::{aligned, binary};
use crate::lab::{
    Family, Kernloom, Lab, LabError, Load, LoadPlan, NAT, Plan, Process, Result, Stage, Tally,
    WebServer, now, wait_until,
};

const CLIENTS: [&str; 8] = [
    "syn", "ack", "scan", "backup", "monitor", "shop", "resolver", "files",
];

/// Every role; their `-bootstrap` variants judge more mildly by the same means.
const ROLES: [&str; 10] = [
    "ziti-controller",
    "ziti-router",
    "web-server",
    "reverse-proxy",
    "api-server",
    "idp",
    "database",
    "nas",
    "ssh-bastion",
    "internal-app",
];

/// Behind one address: clients, and those who open far more than they should.
const PEOPLE: u8 = 200;
const ABUSERS: u8 = 3;

/// How long everything goes on.
const SECONDS: u32 = 4;

const QUESTIONS: u32 = 1_000;

const ATTACKERS: [&str; 3] = ["syn", "ack", "scan"];

/// Packets per second from which each of them is to be held at once, where that alone is enough for
/// a strike; see [`flood_rate`].
const LOUD: f64 = 500.0;

/// A share of what is benign that may be lost.
pub(super) const LOST: f64 = 0.001;

fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> LabError {
    move |error| LabError::new(doing, error)
}

/// Gives each 16 hosts of the office another maximum segment size, as different systems have.
fn mix_stacks(lab: &Lab) -> Result<()> {
    let lines: Vec<String> = (0..16)
        .map(|n| {
            let (net, table, size) = (16 * n, 100 + n, 1_200 + 16 * n);
            format!(
                "rule add from 192.168.77.{net}/28 table {table}\n\
                 route add default via 192.168.77.1 advmss {size} table {table}"
            )
        })
        .collect();
    lab.office()?.ip(&lines.join("\n")).map(drop)
}

/// A socket on the port of DNS.
pub(super) fn resolver(lab: &Lab) -> Result<UdpSocket> {
    lab.client("resolver")?.net.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 53)).map_err(failed("listening on port 53"))?;
        let patience = Some(Duration::from_millis(50));
        let set = socket.set_read_timeout(patience);
        set.map_err(failed("listening on port 53"))?;
        Ok(socket)
    })
}

/// Answers questions until told to stop.
pub(super) fn answer(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    let mut question = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            socket
                .send_to(&[7; 200], from)
                .map_err(failed("answering"))?;
        }
    }
    Ok(())
}

/// Asks the resolver `QUESTIONS` times a second, from a new port each tenth of it; how many were
/// not answered.
pub(super) fn ask_resolver(lab: &Lab) -> Result<u32> {
    let resolver = lab.client("resolver")?.v4;
    lab.server().net.enter(|| {
        let (begun, mut answered) = (now(), 0);
        let turns = SECONDS * 10;
        for turn in 1..=turns {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(failed("asking"))?;
            let patience = Some(Duration::from_secs(1));
            socket
                .set_read_timeout(patience)
                .map_err(failed("asking"))?;
            socket.connect((resolver, 53)).map_err(failed("asking"))?;
            for _ in 0..QUESTIONS / 10 {
                socket.send(&[5; 40]).map_err(failed("asking"))?;
            }
            let mut bytes = [0; 512];
            answered += (0..QUESTIONS / 10)
                .take_while(|_| socket.recv(&mut bytes).is_ok())
                .count();
            let due = begun + Duration::from_millis(100) * turn;
            wait_until(SOON, "the next questions", || Ok(now() >= due))?;
        }
        let answered = u32::try_from(answered).unwrap_or(u32::MAX);
        Ok(turns * (QUESTIONS / 10) - answered)
    })
}

/// How many questions [`ask_resolver`] asks.
pub(super) fn asked() -> f64 {
    f64::from(SECONDS * QUESTIONS)
}

/// Takes transfers.
fn transfers_at(lab: &Lab, port: &str) -> Result<Process> {
    let args = ["-s", "--forceflush", "-p", port];
    let mut server = lab.server().net.spawn("iperf3", &args)?;
    server.wait_line(SOON, "iperf3 to listen", |line| line.contains("listening"))?;
    Ok(server)
}

/// A transfer of so many Mbit/s over one connection; checked at its end.
fn transfer(lab: &Lab, client: &str, port: &str, megabits: u32) -> Result<Process> {
    let (server, rate) = (lab.server().v4.to_string(), format!("{megabits}M"));
    let size = format!("{}K", megabits * SECONDS * 125);
    let args = ["-c", &server, "-p", port, "-b", &rate, "-n", &size];
    lab.client(client)?.net.spawn("iperf3", &args)
}

/// Looks at 12 services every other second; how many were not open.
fn monitor(lab: &Lab) -> Result<usize> {
    let net = &lab.client("monitor")?.net;
    let server = lab.server().v4.to_string();
    let (begun, mut closed) = (now(), 0);
    for look in 1..=SECONDS / 2 {
        let args = ["-n", "-Pn", "-sT", "-p", "80,8001-8011", &server];
        let said = net.run("nmap", &args)?;
        let open = |line: &&str| line.split_whitespace().nth(1) == Some("open");
        closed += 12 - said.lines().filter(open).count();
        let due = begun + Duration::from_secs(2) * look;
        wait_until(SOON, "the next look", || Ok(now() >= due))?;
    }
    Ok(closed)
}

/// One client of two ports, 20 requests a second.
fn shop(lab: &Lab) -> Result<Process> {
    let url = format!(
        "http://{}:{{80,8001}}/[1-{}]",
        lab.server().v4,
        SECONDS * 10
    );
    let args = ["-s", "--noproxy", "*", "--rate", "20/s", "-o", "/dev/null"];
    let told = ["-w", "%{http_code}\n", &url];
    let net = &lab.client("shop")?.net;
    net.spawn("curl", &[&args[..], &told].concat())
}

/// A flood of hping3 that ends with the rest, or with what it returns.
fn flood(lab: &Lab, client: &str, what: &str) -> Result<Process> {
    let packets = SECONDS * 3_000;
    let line = format!("-q -p 80 -i u300 -c {packets} {what} {}", lab.server().v4);
    let words: Vec<&str> = line.split(' ').collect();
    lab.client(client)?.net.spawn("hping3", &words)
}

/// All ports of the host but a few, which takes nmap some tenths of a second.
fn scan(lab: &Lab) -> Result<Process> {
    let server = lab.server().v4.to_string();
    let args = ["-n", "-Pn", "-sS", "-p1000-4000", &server];
    lab.client("scan")?.net.spawn("nmap", &args)
}

/// What was lost of what two threads counted.
#[derive(Debug)]
struct Lost {
    questions: u32,
    services: usize,
}

/// Runs `work` while a resolver answers this host and a monitor looks at it.
fn beside<T>(lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<(Lost, T)> {
    let (socket, stop) = (resolver(lab)?, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let resolver = scope.spawn(|| answer(&socket, &stop));
        let questions = scope.spawn(|| ask_resolver(lab));
        let looks = scope.spawn(|| monitor(lab));
        let done = work();
        let joined = |_| LabError::new("joining", "a thread panicked");
        let lost = questions.join().map_err(joined)?;
        let closed = looks.join().map_err(joined)?;
        stop.store(true, Ordering::Relaxed);
        resolver.join().map_err(joined)??;
        let done = done?;
        let lost = Lost {
            questions: lost?,
            services: closed?,
        };
        Ok((lost, done))
    })
}

/// Everybody at once; who attacks is limited before it is over. What the people sent and lost.
fn everyday(lab: &Lab, iq: &mut Kernloom, (each, abuse): (u32, u32)) -> Result<Tally> {
    let people = LoadPlan {
        first: 0,
        clients: PEOPLE,
        families: &[Family::V4],
        requests: each * SECONDS / 60,
        per_minute: each,
    };
    let abusers = LoadPlan {
        first: PEOPLE,
        clients: ABUSERS,
        requests: abuse * SECONDS,
        per_minute: abuse * 60,
        ..people
    };
    let mut transfers = [
        transfer(lab, "backup", "5201", 64)?,
        transfer(lab, "files", "2049", 32)?,
        transfer(lab, "files", "445", 32)?,
    ];
    let mut shop = shop(lab)?;
    let mut people = Load::start(lab, people)?;
    let mut abusers = Load::start(lab, abusers)?;
    let _attacks = [
        flood(lab, "syn", "-S")?,
        flood(lab, "ack", "-A")?,
        scan(lab)?,
    ];
    for client in ATTACKERS {
        let source = lab.source(client, Family::V4)?;
        iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)?;
    }
    let loads = [people.finish(SOON)?, abusers.finish(SOON)?];
    for transfer in &mut transfers {
        let end = transfer.wait(SOON)?;
        assert!(end.success(), "{}", transfer.text());
    }
    shop.wait(SOON)?;
    let bought = shop.text().lines().filter(|line| *line == "200").count();
    assert_eq!(bought, (SECONDS * 20) as usize, "{}", shop.text());
    Ok(loads[0].plus(loads[1]))
}

/// Requests of each client in a minute, and of each abuser in a second, in proportion to what one
/// host may, as far as two cores make them: all together several times of it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a profile's trigger is some whole SYNs"
)]
fn rates(role: &str) -> (u32, u32) {
    let profile = Profile::named(role).unwrap();
    let may = profile.resolve(&Overrides::default()).unwrap().triggers.syn as u32;
    (
        (may * 6 / 25).clamp(60 / SECONDS, 60),
        (may * 4 / 5).min(150),
    )
}

/// Packets per second that are a flood to this role: SYNs at such a rate decide on their own.
fn flood_rate(role: &str) -> f64 {
    let profile = Profile::named(role).unwrap();
    let config = profile.resolve(&Overrides::default()).unwrap();
    LOUD.max(config.dominance * config.triggers.syn)
}

/// In how many windows each attacker was loud before it was held, that one included.
fn waited(lab: &Lab, recording: &Path, rate: f64) -> [usize; ATTACKERS.len()] {
    ATTACKERS.map(|client| {
        let source: Source = lab.source(client, Family::V4).unwrap().parse().unwrap();
        let loud = |samples: &[Sample], length: Duration| {
            let mut of = samples.iter().filter(|sample| sample.source == source);
            of.any(|sample| sample.packets as f64 > rate * length.as_secs_f64())
        };
        windows(recording, loud, |decision| decision.source == source)
    })
}

/// One role from start to end, and its row of the table.
fn judged_as(lab: &Lab, role: &str) -> [String; 6] {
    let (recording, profile) = (lab.dir().join(role), format!("--profile={role}"));
    let record = format!("--record={}", recording.display());
    let args = [&profile, "--dry-run=false", &record];
    let mut iq = Kernloom::iq(lab, binary(), &args).unwrap();
    let (lost, people) = beside(lab, || everyday(lab, &mut iq, rates(role)))
        .unwrap_or_else(|error| panic!("{role}: {error}\n{}", iq.text()));
    assert!(
        f64::from(lost.questions) <= asked() * LOST,
        "{role}: {lost:?}"
    );
    assert!(
        people.lost as f64 <= people.sent as f64 * LOST,
        "{role}: {people:?}"
    );
    assert_eq!(lost.services, 0, "{role}: {lost:?}");
    for client in ["backup", "monitor", "shop", "resolver", "files", NAT] {
        let source = lab.source(client, Family::V4).unwrap();
        let steps = iq.transitions().iter();
        let held: Vec<_> = steps.filter(|step| step.source == source).collect();
        assert!(held.is_empty(), "{role}: {client}: {held:#?}");
    }
    iq.process().stop().unwrap();
    let reset = ask(lab, "reset");
    assert_eq!(reset.code, Some(0), "{reset:?}");
    let waited = waited(lab, &recording, flood_rate(role));
    assert!(
        waited.iter().all(|windows| *windows <= WINDOWS),
        "{role}: {waited:?}"
    );
    let [syn, ack, scan] = waited.map(|windows| windows.to_string());
    let requests = format!("{} of {}", people.lost, people.sent);
    let answers = format!("{} of {}", lost.questions, asked());
    [role.to_owned(), syn, ack, scan, requests, answers]
}

#[test]
fn everyday_traffic_passes_under_every_role_while_floods_and_scans_are_limited() {
    let plan = Plan {
        clients: &CLIENTS,
        office_hosts: PEOPLE + ABUSERS,
    };
    let Some(lab) = Lab::for_test("everyday", &plan) else {
        return;
    };
    mix_stacks(&lab).unwrap();
    let _web = WebServer::start(&lab).unwrap();
    let _servers = ["5201", "2049", "445"].map(|port| transfers_at(&lab, port).unwrap());
    let rows = ROLES.map(|role| judged_as(&lab, role));
    let heads = [
        "role",
        "syn flood",
        "ack flood",
        "scan",
        "requests lost",
        "answers lost",
    ];
    let rows: Vec<[&str; 6]> = [heads]
        .into_iter()
        .chain(rows.iter().map(|row| row.each_ref().map(String::as_str)))
        .collect();
    println!(
        "windows until held, and what clients lost:\n{}",
        aligned(&rows)
    );
}

#[test]
fn a_connection_that_is_older_than_iq_is_no_strangers() {
    let plan = Plan {
        clients: &["backup"],
        office_hosts: 0,
    };
    let Some(lab) = Lab::for_test("older", &plan) else {
        return;
    };
    let mut server = transfers_at(&lab, "5201").unwrap();
    let to = lab.server().v4.to_string();
    let args = ["-c", &to, "-p", "5201", "-b", "64M", "-t", "600"];
    let _backup = lab.client("backup").unwrap().net.spawn("iperf3", &args);
    let moves = |line: &str| line.contains("Mbits/sec");
    server
        .wait_line(SOON, "the transfer to run", moves)
        .unwrap();
    // A hundred times what it lets a stranger send.
    let args = ["--profile=ssh-bastion", "--dry-run=false"];
    let mut iq = Kernloom::iq(&lab, binary(), &args).unwrap();
    iq.wait_line(SOON, "a tick every").unwrap();
    let source = lab.source("backup", Family::V4).unwrap();
    let ticks = || json(&lab, &["iq", "status", "--json"])["ticks"].as_u64();
    wait_until(SOON, "the second tick", || Ok(ticks() >= Some(2))).unwrap();
    let why = json(&lab, &["iq", "why", &source, "--json"]);
    assert_eq!(why["proven"], true, "{why}");
    iq.process().stop().unwrap();
    let steps = iq.transitions().iter();
    let held: Vec<_> = steps.filter(|step| step.source == source).collect();
    assert!(held.is_empty(), "{held:#?}");
}
