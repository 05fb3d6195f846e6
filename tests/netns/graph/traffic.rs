//! Servers and clients of the graph's tests: what is tried, and whether it was answered.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;

use crate::lab::{LabError, Namespace};

pub(super) type Tried = Result<(), LabError>;

/// Long enough for a lost SYN to be sent again once on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_millis(2_500);
/// What never gets an answer is given less.
pub(super) const SHORT: Duration = Duration::from_millis(400);

/// Answers in a namespace until dropped: TCP and UDP echo, an answer as long as it is asked for.
pub(super) struct Echo {
    pub(super) stop: Arc<AtomicBool>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub(super) fn io(doing: &str, error: &std::io::Error) -> LabError {
    LabError::new(doing, error)
}

pub(super) fn serve<'s>(
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

pub(super) fn echo(mut client: TcpStream, stop: &AtomicBool) {
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
pub(super) fn tcp(net: &Namespace, to: impl Into<IpAddr>, port: u16, patience: Duration) -> Tried {
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
pub(super) fn udp(
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

pub(super) fn ping(net: &Namespace, to: impl Into<IpAddr>) -> Tried {
    net.run("ping", &["-n", "-q", "-c1", "-W1", &to.into().to_string()])
        .map(drop)
}

/// A connection to the server that is held open.
pub(super) struct Held(TcpStream);

impl Held {
    pub(super) fn open(from: &Namespace, to: (Ipv4Addr, u16)) -> Self {
        let stream = from
            .enter(|| TcpStream::connect(to).map_err(|e| io("connecting early", &e)))
            .unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(super) fn is_served(&mut self) {
        self.0.write_all(b"hello").unwrap();
        self.0.read_exact(&mut [0; 5]).unwrap();
    }
}
