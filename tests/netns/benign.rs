//! Everyday traffic with the tools that make it, while attacks go on beside it: who is held, and
//! what is lost.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::binary;
use super::iq::{SOON, ask};
use crate::lab::{
    Family, Kernloom, Lab, LabError, Load, LoadPlan, NAT, Plan, Process, Result, Stage, WebServer,
    now, wait_until,
};

const CLIENTS: [&str; 7] = [
    "syn", "ack", "backup", "monitor", "shop", "resolver", "files",
];

/// Behind one address: clients, and those who open far more than they should.
const PEOPLE: u8 = 200;
const ABUSERS: u8 = 3;

/// How long everything goes on.
const SECONDS: u32 = 10;

const QUESTIONS: u32 = 1_000;

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

/// What was lost of what two threads counted.
#[derive(Debug)]
struct Lost {
    questions: u32,
    services: usize,
}

/// Runs `work` while a resolver answers this host and a monitor looks at it.
fn beside(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<Lost> {
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
        done?;
        Ok(Lost {
            questions: lost?,
            services: closed?,
        })
    })
}

/// Everybody at once; who floods is limited before it is over.
fn everyday(lab: &Lab, iq: &mut Kernloom, (each, abuse): (u32, u32)) -> Result<()> {
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
    let _floods = [flood(lab, "syn", "-S")?, flood(lab, "ack", "-A")?];
    for client in ["syn", "ack"] {
        let source = lab.source(client, Family::V4)?;
        iq.wait_transition(SOON, &source, |step| step.to > Stage::Observe)?;
    }
    let loads = [people.finish(SOON)?, abusers.finish(SOON)?];
    let (sent, lost) = loads.iter().fold((0, 0), |(sent, lost), load| {
        (sent + load.sent, lost + load.lost)
    });
    assert!(lost as f64 <= sent as f64 * LOST, "{loads:?}");
    for transfer in &mut transfers {
        let end = transfer.wait(SOON)?;
        assert!(end.success(), "{}", transfer.text());
    }
    shop.wait(SOON)?;
    let bought = shop.text().lines().filter(|line| *line == "200").count();
    assert_eq!(bought, (SECONDS * 20) as usize, "{}", shop.text());
    Ok(())
}

#[test]
fn everyday_traffic_passes_while_floods_are_limited() {
    let plan = Plan {
        clients: &CLIENTS,
        office_hosts: PEOPLE + ABUSERS,
    };
    let Some(lab) = Lab::for_test("everyday", &plan) else {
        return;
    };
    mix_stacks(&lab).unwrap();
    let _web = WebServer::start(&lab).unwrap();
    let mut servers = Vec::new();
    for port in ["5201", "2049", "445"] {
        let mut server = lab
            .server()
            .net
            .spawn("iperf3", &["-s", "--forceflush", "-p", port])
            .unwrap();
        server
            .wait_line(SOON, "iperf3 to listen", |line| line.contains("listening"))
            .unwrap();
        servers.push(server);
    }
    // Requests of each client in a minute, and of each abuser in a second: above half of what one
    // host may, all together several times of it.
    for (profile, rates) in [
        ("--profile=web-server", (60, 200)),
        ("--profile=idp", (60, 150)),
        ("--profile=nas", (18, 39)),
    ] {
        let mut iq = Kernloom::iq(&lab, binary(), &[profile, "--dry-run=false"]).unwrap();
        let lost = beside(&lab, || everyday(&lab, &mut iq, rates)).unwrap();
        assert!(
            f64::from(lost.questions) <= asked() * LOST,
            "{profile}: {lost:?}"
        );
        assert_eq!(lost.services, 0, "{profile}: {lost:?}");
        for client in ["backup", "monitor", "shop", "resolver", "files", NAT] {
            let source = lab.source(client, Family::V4).unwrap();
            let steps = iq.transitions().iter();
            let held: Vec<_> = steps.filter(|step| step.source == source).collect();
            assert!(held.is_empty(), "{profile}: {client}: {held:#?}");
        }
        iq.process().stop().unwrap();
        let reset = ask(&lab, "reset");
        assert_eq!(reset.code, Some(0), "{reset:?}");
    }
}
