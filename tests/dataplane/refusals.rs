use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use kernloom::dataplane::{Refusals, Told};
use kernloom::model::Source;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

/// Runs `test` in a network namespace of its own, with a loopback that is up.
fn apart<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            test()
        });
        inside.join().unwrap()
    })
}

/// A port of the address that nobody listens on.
fn closed(ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn refused(refusals: &mut Refusals) -> HashMap<String, u32> {
    only_refused(refusals.take().unwrap())
}

fn only_refused(taken: Vec<(Source, Told)>) -> HashMap<String, u32> {
    taken
        .into_iter()
        .filter(|(_, told)| told.refused > 0)
        .map(|(source, told)| (source.to_string(), told.refused))
        .collect()
}

fn counts(known: &[(&str, u32)]) -> HashMap<String, u32> {
    known
        .iter()
        .map(|(source, count)| ((*source).to_owned(), *count))
        .collect()
}

/// A datagram nobody takes; returns once its sender was told so.
fn unheard(from: &str, to: SocketAddr) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"x").unwrap();
    let error = socket.recv(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_belongs_to_no_connection_is_counted_where_it_is_refused() {
    apart(|| {
        let mut refusals = Refusals::load(64, 1_024).unwrap();
        refusals.watch(&[1]).unwrap();
        assert_eq!(refused(&mut refusals), counts(&[]));
        for _ in 0..3 {
            assert!(TcpStream::connect(closed("127.31.0.4")).is_err());
            assert!(TcpStream::connect(closed("::1")).is_err());
        }
        unheard("127.31.0.5", closed("127.31.0.4"));
        // The loopback's own address is who asked, whatever it asked.
        let ours = Source::tracked("::1".parse().unwrap(), 64).to_string();
        let expected = counts(&[("127.0.0.1", 3), (&ours, 3), ("127.31.0.5", 1)]);
        assert_eq!(refused(&mut refusals), expected);
        assert_eq!(refused(&mut refusals), counts(&[]), "told once");
        unheard("127.31.0.5", closed("127.31.0.4"));
        assert_eq!(refused(&mut refusals), counts(&[("127.31.0.5", 1)]));
    });
}

/// What opens nothing is held by no limit of what is new.
#[test]
fn what_had_an_ack_and_what_was_no_tcp_are_told_from_what_would_have_opened_something() {
    apart(|| {
        let run = |line: &str| {
            let (program, args) = line.split_once(' ').unwrap();
            let done = std::process::Command::new(program)
                .args(args.split(' '))
                .output();
            assert!(
                done.as_ref().is_ok_and(|done| done.status.code() < Some(2)),
                "{done:?}"
            );
        };
        run("ip addr add 198.51.100.1/32 dev lo");
        run("ip route add 192.0.2.0/24 dev lo");
        let mut refusals = Refusals::load(64, 1_024).unwrap();
        refusals.watch(&[1]).unwrap();
        for kind in ["-A -c 5", "-S -c 2"] {
            run(&format!(
                "hping3 -q {kind} -i u1000 -p 443 -a 192.0.2.7 198.51.100.1"
            ));
        }
        unheard("127.31.0.5", closed("127.31.0.4"));
        let told: HashMap<String, _> = refusals
            .take()
            .unwrap()
            .into_iter()
            .map(|(source, told)| {
                (
                    source.to_string(),
                    (told.refused, told.strays, told.datagrams),
                )
            })
            .filter(|(_, counts)| counts.0 > 0)
            .collect();
        let expected = [("192.0.2.7", (7, 5, 0)), ("127.31.0.5", (1, 0, 1))];
        assert_eq!(
            told,
            expected
                .map(|(source, counts)| (source.to_owned(), counts))
                .into()
        );
    });
}

#[test]
fn what_is_refused_while_counts_are_read_hides_nothing_that_was_before() {
    apart(|| {
        let mut refusals = Refusals::load(64, 1_024).unwrap();
        refusals.watch(&[1]).unwrap();
        let (to, of) = (closed("127.31.0.4"), |count| {
            counts(&[("127.31.0.5", count)])
        });
        for _ in 0..3 {
            unheard("127.31.0.5", to);
        }
        let ended = refusals.turn().unwrap().unwrap();
        unheard("127.31.0.5", to);
        unheard("127.31.0.5", to);
        assert_eq!(only_refused(refusals.told_in(ended).unwrap()), of(3));
        assert_eq!(refused(&mut refusals), of(2), "told once, and by itself");
        // One that was silent for an epoch has nothing of before.
        unheard("127.31.0.6", to);
        assert_eq!(refused(&mut refusals), counts(&[("127.31.0.6", 1)]));
        unheard("127.31.0.6", to);
        let ended = refusals.turn().unwrap().unwrap();
        unheard("127.31.0.5", to);
        let told = only_refused(refusals.told_in(ended).unwrap());
        assert_eq!(told, counts(&[("127.31.0.6", 1)]));
    });
}

#[test]
fn every_refused_source_is_read_however_many_there_are() {
    apart(|| {
        let mut refusals = Refusals::load(64, 16_384).unwrap();
        refusals.watch(&[1]).unwrap();
        let to = closed("127.31.0.4");
        let hosts =
            (1..=24).flat_map(|net| (1..=250).map(move |host| format!("127.32.{net}.{host}")));
        let hosts: Vec<String> = hosts.collect();
        for host in &hosts {
            unheard(host, to);
        }
        let told = refused(&mut refusals);
        let missing = hosts.iter().filter(|host| told.get(*host) != Some(&1));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new());
    });
}

#[test]
fn a_connection_that_is_aborted_was_not_refused() {
    apart(|| {
        let mut refusals = Refusals::load(64, 1_024).unwrap();
        refusals.watch(&[1]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let at_once = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&server, sockopt::Linger, &at_once).unwrap();
        drop(server);
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(refused(&mut refusals), counts(&[]));
        // Left alone, an interface tells nothing more.
        refusals.watch(&[]).unwrap();
        assert!(!refusals.watches());
        assert!(TcpStream::connect(closed("127.31.0.4")).is_err());
        assert_eq!(refused(&mut refusals), counts(&[]));
    });
}

#[test]
fn who_is_asked_over_udp_is_told_from_who_is_answered() {
    apart(|| {
        for (asker, resolver) in [("127.31.0.7", "127.31.0.8"), ("::1", "::1")] {
            let mut refusals = Refusals::load(64, 1_024).unwrap();
            refusals.watch(&[1]).unwrap();
            let server = UdpSocket::bind((resolver, 53)).unwrap();
            let client = UdpSocket::bind((asker, 0)).unwrap();
            for _ in 0..5 {
                client.send_to(b"?", (resolver, 53)).unwrap();
                let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
                server.send_to(b"an answer", from).unwrap();
                client.recv(&mut [0; 16]).unwrap();
            }
            let told = refusals.take().unwrap();
            let [(source, told)] = told[..] else {
                panic!("only the resolver was asked: {told:?}");
            };
            assert_eq!(source, Source::tracked(resolver.parse().unwrap(), 64));
            assert_eq!((told.refused, told.asked), (0, 5));
        }
    });
}
