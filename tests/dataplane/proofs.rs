use std::collections::HashMap;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use kernloom::dataplane::Proofs;
use kernloom::model::{Ktime, Source};

fn source(text: &str) -> Source {
    Source::tracked(text.parse::<IpAddr>().unwrap(), 64)
}

fn all(proofs: &Proofs) -> HashMap<Source, Ktime> {
    proofs.all().unwrap().into_iter().collect()
}

/// Our end of a connection sees `from` as its peer once the handshake is over.
fn connect(to: &str, from: &str) {
    let listener = TcpListener::bind((to, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = nix_connect(from, to, port);
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), from.parse::<IpAddr>().unwrap());
    drop((client, server));
}

/// `TcpStream::connect` from a chosen address.
fn nix_connect(from: &str, to: &str, port: u16) -> TcpStream {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket,
    };
    use std::net::SocketAddr;
    use std::os::fd::AsRawFd;

    let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let family = if address(to, 0).is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address(from, 0))).unwrap();
    connect(fd.as_raw_fd(), &SockaddrStorage::from(address(to, port))).unwrap();
    TcpStream::from(fd)
}

#[test]
fn a_completed_handshake_proves_an_address_and_nothing_less_does() {
    let proofs = Proofs::watch(64, 1_024).unwrap();
    connect("127.0.0.1", "127.31.0.2");
    connect("::1", "::1");
    // A datagram and a refused connection: nobody has shown to receive what we send.
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = UdpSocket::bind("127.31.0.3:0").unwrap();
    datagram
        .send_to(b"x", listener.local_addr().unwrap())
        .unwrap();
    let closed = {
        let listener = TcpListener::bind("127.31.0.4:0").unwrap();
        listener.local_addr().unwrap()
    };
    assert!(TcpStream::connect(closed).is_err());
    let proven = all(&proofs);
    assert!(proven.contains_key(&source("127.31.0.2")), "{proven:?}");
    assert!(proven.contains_key(&source("::1")), "{proven:?}");
    assert!(!proven.contains_key(&source("127.31.0.3")), "{proven:?}");
    assert!(!proven.contains_key(&source("127.31.0.4")), "{proven:?}");
}

#[test]
fn an_ipv6_socket_that_speaks_ipv4_proves_the_one_address() {
    let proofs = Proofs::watch(64, 1_024).unwrap();
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = nix_connect("127.31.0.5", "127.0.0.1", port);
    drop((client, listener.accept().unwrap()));
    assert!(all(&proofs).contains_key(&source("127.31.0.5")));
}

#[test]
fn every_source_is_read_however_many_there_are() {
    let proofs = Proofs::watch(64, 16_384).unwrap();
    let hosts = (1..=24).flat_map(|net| (1..=250).map(move |host| format!("127.32.{net}.{host}")));
    let hosts: Vec<String> = hosts.collect();
    for host in &hosts {
        connect("127.0.0.1", host);
    }
    let proven = all(&proofs);
    let missing = hosts
        .iter()
        .filter(|host| !proven.contains_key(&source(host)));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn more_sources_than_fit_are_forgotten_one_by_one() {
    let proofs = Proofs::watch(64, 64).unwrap();
    for host in 1..=250 {
        connect("127.0.0.1", &format!("127.31.1.{host}"));
    }
    let proven = all(&proofs);
    assert!(proven.contains_key(&source("127.31.1.250")));
    assert!(proven.len() <= 64, "{}", proven.len());
}

/// Both ends of a connection, from `from`.
fn connection(to: &str, from: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((to, 0)).unwrap();
    let client = nix_connect(from, to, listener.local_addr().unwrap().port());
    (client, listener.accept().unwrap().0)
}

#[test]
fn who_is_connected_before_anybody_watches_is_proven_and_who_only_asks_is_not() {
    let _v4 = connection("127.0.0.1", "127.33.0.2");
    let _v6 = connection("::1", "::1");
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _mapped = nix_connect("127.33.0.3", "127.0.0.1", port);
    // One side has left.
    let (leaving, _waits) = connection("127.0.0.1", "127.33.0.4");
    leaving.shutdown(std::net::Shutdown::Write).unwrap();
    let _listens = TcpListener::bind("127.33.0.5:0").unwrap();
    let proofs = Proofs::watch(64, 16_384).unwrap();
    let proven = all(&proofs);
    for peer in ["127.33.0.2", "::1", "127.33.0.3", "127.33.0.4"] {
        assert!(proven.contains_key(&source(peer)), "{peer}: {proven:?}");
    }
    for stranger in ["127.33.0.5", "0.0.0.0"] {
        assert!(!proven.contains_key(&source(stranger)), "{proven:?}");
    }
}

#[test]
fn who_is_renewed_outlasts_any_number_of_newer_ones() {
    let proofs = Proofs::watch(64, 1_024).unwrap();
    let [kept, left] = ["127.34.0.1", "127.34.0.2"];
    let _connections = [kept, left].map(|from| connection("127.0.0.1", from));
    let mut stamps = Vec::new();
    for net in 1..=16 {
        for host in 1..=250 {
            connect("127.0.0.1", &format!("127.34.{net}.{host}"));
        }
        let proven = all(&proofs);
        let stamp = proven.get(&source(kept)).copied();
        stamps.push(stamp.expect("it was renewed 250 sources ago"));
        let now = kernloom::runtime::now().unwrap();
        proofs.renew([source(kept)], now).unwrap();
    }
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    assert!(!all(&proofs).contains_key(&source(left)));
}
