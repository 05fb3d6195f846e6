//! A small company around one identity provider: learned, judged ready, frozen, enforced.
//!
//! The graph's clock runs 43 200 times as fast, so that a tick of 200 ms is 2.4 hours and a day 2 s.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;

use super::binary;
use crate::lab::{Host, Kernloom, Lab, LabError, Namespace, Plan, Said, wait_until};
use crate::packet::{DOT1Q, Frame, L4};

type Tried = Result<(), LabError>;

/// Long enough for a lost SYN to be sent again once on a busy machine.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// What never gets an answer is given less.
const SHORT: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(60);

/// Answers in a namespace until dropped: TCP and UDP echo, an answer as long as it is asked for.
struct Echo {
    stop: Arc<AtomicBool>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn io(doing: &str, error: &std::io::Error) -> LabError {
    LabError::new(doing, error)
}

fn serve<'s>(
    scope: &'s Scope<'s, '_>,
    net: &'s Namespace,
    stop: &Arc<AtomicBool>,
    tcp: &'s [u16],
    udp: &'s [u16],
) -> Vec<ScopedJoinHandle<'s, Tried>> {
    let ready = Arc::new(std::sync::Barrier::new(tcp.len() + udp.len() + 1));
    let mut threads = Vec::new();
    for port in tcp {
        let (stop, ready) = (Arc::clone(stop), Arc::clone(&ready));
        threads.push(scope.spawn(move || {
            net.enter(|| {
                let failed = |e| io(&format!("listening on {port}"), &e);
                let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).map_err(failed)?;
                // accept(2) gives up after as long, so that the end is seen.
                let pause = nix::sys::time::TimeVal::new(0, 20_000);
                setsockopt(&listener, ReceiveTimeout, &pause).map_err(|e| failed(e.into()))?;
                ready.wait();
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((client, _)) = listener.accept() {
                        let stop = Arc::clone(&stop);
                        scope.spawn(move || echo(client, &stop));
                    }
                }
                Ok(())
            })
        }));
    }
    for port in udp {
        let (stop, ready) = (Arc::clone(stop), Arc::clone(&ready));
        threads.push(scope.spawn(move || {
            net.enter(|| {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port));
                let socket = socket.map_err(|e| io(&format!("binding {port}"), &e))?;
                socket
                    .set_read_timeout(Some(Duration::from_millis(20)))
                    .map_err(|e| io("serving", &e))?;
                ready.wait();
                let mut bytes = vec![0; 9_000];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((count, from)) = socket.recv_from(&mut bytes) {
                        // Refused answers are the test's business, not the server's.
                        let _ = socket.send_to(&bytes[..count], from);
                    }
                }
                Ok(())
            })
        }));
    }
    ready.wait();
    threads
}

fn echo(mut client: TcpStream, stop: &AtomicBool) {
    let mut bytes = [0; 64];
    if client
        .set_read_timeout(Some(Duration::from_millis(20)))
        .is_err()
    {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match client.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) if client.write_all(&bytes[..count]).is_ok() => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// A connection and a word in both directions.
fn tcp(net: &Namespace, to: impl Into<IpAddr>, port: u16, patience: Duration) -> Tried {
    let to = SocketAddr::new(to.into(), port);
    net.enter(|| {
        let failed = |e| io(&format!("tcp to {to}"), &e);
        let mut stream = TcpStream::connect_timeout(&to, patience).map_err(failed)?;
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        stream.write_all(b"hello").map_err(failed)?;
        stream.read_exact(&mut [0; 5]).map_err(failed)
    })
}

/// A datagram of `len` bytes there and back; beyond the MTU it travels in fragments.
fn udp(
    net: &Namespace,
    to: impl Into<IpAddr>,
    port: u16,
    from: u16,
    len: usize,
    patience: Duration,
) -> Tried {
    let to = SocketAddr::new(to.into(), port);
    net.enter(|| {
        let failed = |e| io(&format!("udp to {to}"), &e);
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, from)).map_err(failed)?;
        socket.set_read_timeout(Some(patience)).map_err(failed)?;
        socket.send_to(&vec![7; len], to).map_err(failed)?;
        let (count, _) = socket.recv_from(&mut vec![0; 9_000]).map_err(failed)?;
        if count == len {
            Ok(())
        } else {
            Err(LabError::new(format!("udp to {to}"), "cut short"))
        }
    })
}

fn ping(net: &Namespace, to: impl Into<IpAddr>) -> Tried {
    net.run("ping", &["-n", "-q", "-c1", "-W1", &to.into().to_string()])
        .map(drop)
}

struct Company<'l> {
    lab: &'l Lab,
    container: Namespace,
}

impl<'l> Company<'l> {
    /// A container on the server: out through masquerading, in through a published port.
    fn of(lab: &'l Lab) -> Result<Self, LabError> {
        let server = &lab.server().net;
        let name = format!("{}-c", server.name());
        let container = Namespace::create(name.clone())?;
        server.ip(&format!(
            "link add c0 type veth peer name eth0 netns {name}\naddr add 172.30.0.1/24 dev c0\nlink set c0 up"
        ))?;
        container.ip(
            "addr add 172.30.0.2/24 dev eth0\nlink set eth0 up\nroute add default via 172.30.0.1",
        )?;
        server.set("net/ipv4/ip_forward", "1")?;
        server.nft(
            "add table ip company\n\
             add chain ip company out { type nat hook postrouting priority srcnat; }\n\
             add rule ip company out ip saddr 172.30.0.0/24 oifname eth0 masquerade\n\
             add chain ip company in { type nat hook prerouting priority dstnat; }\n\
             add rule ip company in iifname eth0 tcp dport 8080 dnat to 172.30.0.2:80",
        )?;
        Ok(Self { lab, container })
    }

    fn host(&self, name: &str) -> &Host {
        self.lab.client(name).unwrap()
    }

    /// Every legitimate exchange, by name. `weekly`: the backup runs too.
    fn exchanges(&self, weekly: bool) -> Vec<(&'static str, Tried)> {
        let (server, backup) = (self.lab.server(), self.host("backup"));
        let mut done = self.inbound();
        done.extend(self.outbound());
        if weekly {
            done.push(("the backup runs", tcp(&backup.net, server.v4, 22, PATIENCE)));
        }
        done
    }

    fn inbound(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        let [app1, app2, monitor] = ["app1", "app2", "monitor"].map(|name| self.host(name));
        vec![
            ("app1 logs in", tcp(&app1.net, server.v4, 443, PATIENCE)),
            (
                "app1 logs in over IPv6",
                tcp(&app1.net, server.v6, 443, PATIENCE),
            ),
            ("app2 logs in", tcp(&app2.net, server.v4, 443, PATIENCE)),
            (
                "app1 on a high port",
                udp(&app1.net, server.v4, 51_820, 0, 100, PATIENCE),
            ),
            (
                "app1 in fragments",
                udp(&app1.net, server.v4, 2_049, 0, 6_000, PATIENCE),
            ),
            (
                "app1 in fragments over IPv6",
                udp(&app1.net, server.v6, 2_049, 0, 6_000, PATIENCE),
            ),
            (
                "monitoring scrapes",
                tcp(&monitor.net, server.v4, 9_100, PATIENCE),
            ),
            ("monitoring pings", ping(&monitor.net, server.v4)),
            ("monitoring pings over IPv6", ping(&monitor.net, server.v6)),
            (
                "app2 uses the container",
                tcp(&app2.net, server.v4, 8_080, PATIENCE),
            ),
        ]
    }

    fn outbound(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        let [db, dns] = ["db", "dns"].map(|name| self.host(name));
        vec![
            (
                "the directory is read",
                tcp(&server.net, db.v4, 5_432, PATIENCE),
            ),
            (
                "names are asked for",
                udp(&server.net, dns.v4, 53, 0, 60, PATIENCE),
            ),
            (
                "names are asked for over IPv6",
                udp(&server.net, dns.v6, 53, 0, 60, PATIENCE),
            ),
            (
                "a long answer arrives",
                udp(&server.net, dns.v4, 53, 0, 4_000, PATIENCE),
            ),
            (
                "time is asked for from its own port",
                udp(&server.net, dns.v4, 123, 123, 48, PATIENCE),
            ),
            (
                "updates come over HTTPS",
                tcp(&server.net, dns.v4, 443, PATIENCE),
            ),
            (
                "the container reads the directory",
                tcp(&self.container, db.v4, 5_432, PATIENCE),
            ),
        ]
    }

    /// Lateral moves through the stack of whoever makes them; none may succeed.
    fn moves(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        let [app1, app2, db, evil] = ["app1", "app2", "db", "evil"].map(|name| self.host(name));
        vec![
            ("a new source", tcp(&evil.net, server.v4, 443, SHORT)),
            (
                "a new source over IPv6",
                tcp(&evil.net, server.v6, 443, SHORT),
            ),
            (
                "a new source by UDP",
                udp(&evil.net, server.v4, 51_820, 0, 100, SHORT),
            ),
            (
                "a new source in fragments",
                udp(&evil.net, server.v4, 2_049, 0, 6_000, SHORT),
            ),
            (
                "a new source in fragments over IPv6",
                udp(&evil.net, server.v6, 2_049, 0, 6_000, SHORT),
            ),
            ("a new source pings", ping(&evil.net, server.v4)),
            (
                "a new source at the container",
                tcp(&evil.net, server.v4, 8_080, SHORT),
            ),
            ("a new port", tcp(&app1.net, server.v4, 22, SHORT)),
            (
                "a new port over IPv6",
                tcp(&app1.net, server.v6, 9_100, SHORT),
            ),
            (
                "a new protocol",
                udp(&app1.net, server.v4, 443, 0, 10, SHORT),
            ),
            (
                "IPv6 instead of IPv4",
                tcp(&app2.net, server.v6, 443, SHORT),
            ),
            (
                "the server turns on the attacker",
                tcp(&server.net, evil.v4, 4_444, SHORT),
            ),
            (
                "the server turns on the database",
                tcp(&server.net, db.v4, 22, SHORT),
            ),
            (
                "the server leaks by UDP",
                udp(&server.net, evil.v4, 4_444, 0, 100, SHORT),
            ),
            (
                "the container turns on the attacker",
                tcp(&self.container, evil.v4, 4_444, SHORT),
            ),
        ]
    }
}

fn failed<'a>(tried: &'a [(&'static str, Tried)]) -> Vec<(&'static str, &'a LabError)> {
    tried
        .iter()
        .filter_map(|(name, tried)| tried.as_ref().err().map(|error| (*name, error)))
        .collect()
}

fn graph(lab: &Lab, words: &str) -> Said {
    let words: Vec<&str> = ["graph"].into_iter().chain(words.split(' ')).collect();
    Kernloom::ask(lab, binary(), &words).unwrap()
}

fn good(lab: &Lab, words: &str) -> String {
    let said = graph(lab, words);
    assert_eq!(said.code, Some(0), "graph {words}: {said:?}");
    said.out
}

/// Packets of a kind that no stack of these hosts would send, straight onto the server's wire.
fn odd_frames(lab: &Lab, source: IpAddr) -> Vec<Frame> {
    let server = lab.server();
    let to: IpAddr = if source.is_ipv4() {
        server.v4.into()
    } else {
        server.v6.into()
    };
    let raw = |proto, payload| Frame::new(source, L4::Raw { proto, payload });
    let mut frames = vec![
        Frame::syn(source, 0),
        Frame::ack(source, 443),
        Frame::ack(source, 22),
        Frame::new(
            source,
            L4::Tcp {
                sport: 443,
                dport: 40_000,
                flags: 0x12,
            },
        ),
        Frame::udp(source, 53, 40_000),
        raw(
            132,
            &[0x9c, 0x40, 0x0f, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20],
        ),
        raw(47, &[0, 0, 8, 0, 0x45, 0, 0, 20]),
        raw(4, &[0x45; 20]),
        raw(253, &[0; 20]),
        raw(6, &[0x9c, 0x40, 0, 22, 0, 0, 0, 0]),
        Frame::syn(source, 22).vlan(DOT1Q, 0),
        Frame::udp(source, 40_000, 2_049).fragment(99, 185, false),
        Frame::udp(source, 40_000, 2_049).fragment(98, 0, true),
    ];
    if source.is_ipv6() {
        frames.push(Frame::syn(source, 22).extensions(&[60]));
        frames.push(Frame::syn(source, 22).extensions(&[0, 60, 43]));
        frames.push(Frame::syn(source, 22).extensions(&[60; 9]));
    }
    frames.into_iter().map(|frame| frame.to(to)).collect()
}

/// Sends frames out of the router's device to the server, with the server's address in front.
fn inject(lab: &Lab, frames: &[Frame]) -> Tried {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, send, socket};
    use std::os::fd::AsRawFd;
    let link = lab
        .server()
        .net
        .run("ip", &["-o", "link", "show", "eth0"])?;
    let mac = link
        .split("link/ether ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    let mac: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    lab.router().enter(|| {
        let failed = |e: nix::Error| LabError::new("injecting frames", e);
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            None,
        )
        .map_err(failed)?;
        let mut address: nix::libc::sockaddr_ll = unsafe_zeroed();
        address.sll_family = u16::try_from(nix::libc::AF_PACKET).unwrap();
        address.sll_ifindex = nix::net::if_::if_nametoindex("server").map_err(failed)? as i32;
        let address = link_address(&address);
        bind(fd.as_raw_fd(), &address).map_err(failed)?;
        for frame in frames {
            let mut bytes = frame.build();
            bytes[..6].copy_from_slice(&mac);
            send(fd.as_raw_fd(), &bytes, nix::sys::socket::MsgFlags::empty()).map_err(failed)?;
        }
        Ok(())
    })
}

fn unsafe_zeroed() -> nix::libc::sockaddr_ll {
    // SAFETY: plain integers, for which all zero is a value.
    unsafe { std::mem::zeroed() }
}

fn link_address(address: &nix::libc::sockaddr_ll) -> nix::sys::socket::LinkAddr {
    use nix::sys::socket::SockaddrLike;
    let len = u32::try_from(size_of::<nix::libc::sockaddr_ll>()).unwrap();
    // SAFETY: a whole sockaddr_ll, whose length is given.
    unsafe { nix::sys::socket::LinkAddr::from_raw(std::ptr::from_ref(address).cast(), Some(len)) }
        .unwrap()
}

/// Packets counted under reasons whose name begins so.
fn counted(lab: &Lab, beginning: &str) -> u64 {
    let stats = Kernloom::run(lab, binary(), &["shield", "stats"]).unwrap();
    stats
        .lines()
        .filter(|line| line.trim_start().starts_with(beginning))
        .filter_map(|line| {
            line.split_whitespace()
                .nth(2)?
                .replace(',', "")
                .parse::<u64>()
                .ok()
        })
        .sum()
}

#[test]
fn a_small_company_is_learned_frozen_and_enforced_and_no_lateral_move_succeeds() {
    let clients = ["app1", "app2", "db", "monitor", "backup", "dns", "evil"];
    let plan = Plan {
        clients: &clients,
        office_hosts: 0,
    };
    let Some(lab) = Lab::for_test("company", &plan) else {
        return;
    };
    let company = Company::of(&lab).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Echo {
            stop: Arc::clone(&stop),
        };
        serve(
            scope,
            &lab.server().net,
            &stop,
            &[443, 9_100, 22, 9_999],
            &[51_820, 2_049, 443],
        );
        serve(scope, &company.container, &stop, &[80], &[]);
        serve(scope, &company.host("db").net, &stop, &[5_432, 22], &[]);
        serve(scope, &company.host("dns").net, &stop, &[443], &[53, 123]);
        serve(scope, &company.host("evil").net, &stop, &[4_444], &[4_444]);
        live(&lab, &company);
    });
}

/// A connection to the server that is held open.
struct Held(TcpStream);

impl Held {
    fn open(from: &Namespace, to: (Ipv4Addr, u16)) -> Self {
        let stream = from
            .enter(|| TcpStream::connect(to).map_err(|e| io("connecting early", &e)))
            .unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn is_served(&mut self) {
        self.0.write_all(b"hello").unwrap();
        self.0.read_exact(&mut [0; 5]).unwrap();
    }
}

fn live(lab: &Lab, company: &Company) {
    let judge = [
        "--profile=idp",
        "--graph",
        "--graph-mode=learn",
        "--graph-clock=43200",
        "--interval=200ms",
    ];
    let mut iq = Kernloom::iq(lab, binary(), &judge).unwrap();
    learn(lab, company, &mut iq);
    freeze(lab);
    // A connection that was never learned, open at the moment of freezing.
    let mut early = Held::open(&company.host("monitor").net, (lab.server().v4, 9_999));
    early.is_served();
    observe(lab, company);
    enforce(lab, company, &mut early);
    attack(lab, company);
    decisions_count_at_once(lab, company);
    w40_a_restart_opens_nothing_that_was_closed(lab, company, iq, &judge);
}

/// The company works until readiness says that little new is to be expected.
fn learn(lab: &Lab, company: &Company, iq: &mut Kernloom) {
    wait_until(SOON, "iq to answer", || {
        Ok(graph(lab, "readiness").code == Some(0))
    })
    .unwrap();
    assert_eq!(graph(lab, "enforce").code, Some(2), "nothing is frozen yet");
    assert!(good(lab, "readiness").contains("not ready"));
    let early = graph(lab, "freeze");
    assert_eq!(early.code, Some(2), "{early:?}");
    assert!(early.err.contains("--accept-risk"), "{early:?}");
    let mut rounds = 0;
    wait_until(SOON, "readiness", || {
        iq.check_running()?;
        let done = company.exchanges(rounds % 4 == 0);
        let lost = failed(&done);
        assert!(lost.is_empty(), "while learning: {lost:?}");
        rounds += 1;
        let readiness = good(lab, "readiness");
        Ok(rounds >= 16 && learned_days(&readiness) >= 8 && readiness.contains(": ready"))
    })
    .unwrap_or_else(|error| {
        let (readiness, edges) = (good(lab, "readiness"), good(lab, "edges"));
        panic!("{error}\n{readiness}\n{edges}")
    });
}

fn freeze(lab: &Lab) {
    let foreseen = good(lab, "freeze --dry-run");
    assert!(
        foreseen.contains("dry run: nothing was changed"),
        "{foreseen}"
    );
    let frozen = good(lab, "freeze");
    assert!(frozen.contains("edges are frozen in"), "{frozen}");
    assert!(
        !frozen.contains("10.77.8.2"),
        "the attacker taught nothing: {frozen}"
    );
}

fn observe(lab: &Lab, company: &Company) {
    good(lab, "observe");
    let probe = tcp(&company.host("evil").net, lab.server().v4, 22, PATIENCE);
    assert!(probe.is_ok(), "observing drops nothing: {probe:?}");
    wait_until(SOON, "the violation to be told", || {
        Ok(good(lab, "violations").contains("10.77.8.2"))
    })
    .unwrap();
}

fn enforce(lab: &Lab, company: &Company, early: &mut Held) {
    let enforced = good(lab, "enforce --lease 10m");
    assert!(enforced.contains("graph confirm"), "{enforced}");
    early.is_served();
    good(lab, "confirm");
    for round in 0..3 {
        let done = company.exchanges(round == 0);
        let (lost, violations) = (failed(&done), good(lab, "violations"));
        assert!(lost.is_empty(), "enforcing: {lost:?}\n{violations}");
    }
    early.is_served();
    let late = tcp(&company.host("monitor").net, lab.server().v4, 9_999, SHORT);
    assert!(late.is_err(), "and nobody else connects there");
}

fn attack(lab: &Lab, company: &Company) {
    let made = company.moves();
    let succeeded: Vec<_> = made
        .iter()
        .filter(|(_, tried)| tried.is_ok())
        .map(|(name, _)| name)
        .collect();
    let shown = good(lab, "show");
    assert!(
        succeeded.is_empty(),
        "lateral moves succeeded: {succeeded:?}\n{shown}"
    );
    nothing_odd_arrives(lab, company);
    // Neither the attacker nor anybody else was blocked for it.
    let policy = Kernloom::run(lab, binary(), &["shield", "deny", "list"]).unwrap();
    assert!(!policy.contains("10.77."), "{policy}");
    let done = company.exchanges(true);
    let lost = failed(&done);
    assert!(lost.is_empty(), "after the attack: {lost:?}");
}

/// Part of the story above: it needs the company.
fn w40_a_restart_opens_nothing_that_was_closed(
    lab: &Lab,
    company: &Company,
    iq: Kernloom,
    judge: &[&str],
) {
    let (evil, app1, server) = (company.host("evil"), company.host("app1"), lab.server());
    good(lab, "enforce --lease 0");
    drop(iq);
    // With no IQ at all, the kernel goes on.
    assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
    tcp(&app1.net, server.v4, 443, PATIENCE).unwrap();
    // And --graph-mode=learn on the command line of the next does not open what a command closed.
    let mut iq = Kernloom::iq(lab, binary(), judge).unwrap();
    wait_until(SOON, "iq to answer", || {
        Ok(graph(lab, "readiness").code == Some(0))
    })
    .unwrap();
    assert!(
        iq.text().contains("was put in force by command and stays"),
        "{}",
        iq.text()
    );
    assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
    tcp(&app1.net, server.v4, 443, PATIENCE).unwrap();
    // Killed without a farewell: what was flushed is there, and the kernel still enforces.
    iq.process()
        .signal(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    wait_until(SOON, "iq to be gone", || Ok(iq.check_running().is_err())).unwrap();
    assert!(good(lab, "edges --state frozen").contains("tcp/443"));
    assert!(tcp(&evil.net, server.v4, 22, SHORT).is_err());
}

/// The number in "learned on 8 days".
fn learned_days(readiness: &str) -> u32 {
    let (_, rest) = readiness.split_once("learned on ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn nothing_odd_arrives(lab: &Lab, company: &Company) {
    let evil = company.host("evil");
    let filter = format!("ip host {} or ip6 host {}", evil.v4, evil.v6);
    let filter = format!(
        "(src host {} or src host {}) and ({filter}) and not icmp6 and not arp",
        evil.v4, evil.v6
    );
    let mut tap = lab
        .server()
        .net
        .spawn("tcpdump", &["-i", "eth0", "-nn", "-l", "-p", &filter])
        .unwrap();
    tap.wait_line(SOON, "tcpdump to listen", |line| {
        line.contains("listening on")
    })
    .unwrap();
    let before = counted(lab, "edge-");
    let mut sent = 0;
    for source in [evil.v4.into(), evil.v6.into()] {
        let frames = odd_frames(lab, source);
        sent += frames.len() as u64;
        inject(lab, &frames).unwrap();
    }
    wait_until(SOON, "every odd frame to be judged", || {
        Ok(counted(lab, "edge-") >= before + sent)
    })
    .unwrap();
    let seen: Vec<String> = tap
        .lines_from(0)
        .into_iter()
        .map(|line| line.text)
        .filter(|line| line.contains(" > "))
        .collect();
    assert!(seen.is_empty(), "odd frames reached the stack: {seen:?}");
}

fn decisions_count_at_once(lab: &Lab, company: &Company) {
    let (evil, server) = (company.host("evil"), lab.server());
    good(lab, &format!("allow {} tcp/443", evil.v4));
    tcp(&evil.net, server.v4, 443, PATIENCE).unwrap();
    good(lab, &format!("deny {} tcp/443", evil.v4));
    assert!(tcp(&evil.net, server.v4, 443, SHORT).is_err());
    good(lab, "thaw");
    // Denied is denied, in learning too.
    assert!(tcp(&evil.net, server.v4, 443, SHORT).is_err());
    tcp(&evil.net, server.v4, 22, PATIENCE).unwrap();
}
