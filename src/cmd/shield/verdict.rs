//! The question put to the running program, and its answer in words.

use std::net::{IpAddr, Ipv6Addr};

use super::super::{changing, graph};
use crate::cli::{Proto, VerdictArgs};
use crate::dataplane::{Answer, EdgeBy, Lock, PinDir, Reason, Shield};
use crate::error::Result;
use crate::graph::{Direction, Edge, Mode, Peer, Service};
use crate::host::Host;
use crate::model::Source;
use crate::report::{GraphVerdict, VerdictReport, print};
use crate::runtime::now;

pub(super) fn verdict(host: &Host, pins: &PinDir, args: &VerdictArgs) -> Result<()> {
    let (lock, shield) = changing(pins)?;
    let source = args.source.to_canonical();
    let answer = asked(&shield, source, args.proto, args.dport, &lock)?;
    let decided_by = answer
        .decided_by
        .map(|bits| Source::containing(Source::host(source).octets(), bits));
    let entry = match decided_by {
        Some(prefix) => shield.entry(&prefix)?,
        None => None,
    };
    let report = VerdictReport {
        source,
        reason: answer.reason,
        entry,
        ceiling: shield.ceiling(),
        graph: of_graph(host, &shield, args, &answer)?,
    };
    let (notes, at) = (shield.notes()?, now()?);
    print(&if args.json {
        report.json(&notes, at)
    } else {
        report.text(&notes, at)
    })
}

/// What the program would do with a packet from `source` that opens something; nobody counts it.
pub(in crate::cmd) fn asked(
    shield: &Shield,
    source: IpAddr,
    proto: Proto,
    dport: u16,
    lock: &Lock,
) -> Result<Answer> {
    shield.probe(&frame(source, proto, dport), lock)
}

/// What the edge stage said; `None` without one.
fn of_graph(
    host: &Host,
    shield: &Shield,
    args: &VerdictArgs,
    answer: &Answer,
) -> Result<Option<GraphVerdict>> {
    let mode = shield
        .graph()
        .map_or(Ok(Mode::Off), |plane| now().map(|at| plane.status(at).mode))?;
    if mode == Mode::Off {
        return Ok(None);
    }
    let address = args.source.to_canonical();
    let (whole, tracked) = (
        Source::host(address),
        Source::tracked(address, shield.v6_bits()),
    );
    let port = match args.proto {
        Proto::Icmp => 0,
        Proto::Tcp | Proto::Udp => args.dport,
    };
    let of = |peer| Edge {
        direction: Direction::In,
        peer,
        service: Service::new(number(args.proto, address), port),
    };
    let of_prefix = of(Peer::Source(tracked));
    let of_source = of(Peer::Source(whole));
    let denied = answer.reason == Reason::EdgeDenied;
    Ok(Some(match answer.edge {
        _ if answer.dropped && !answer.reason.is_of_graph() => GraphVerdict::NotAsked(mode),
        EdgeBy::Exempt if mode != Mode::Learn => GraphVerdict::Exempt(mode, of_source),
        EdgeBy::Nothing | EdgeBy::Exempt => GraphVerdict::Unknown(mode, of_source),
        EdgeBy::Scope => GraphVerdict::OutOfScope(mode, of_source.service),
        EdgeBy::Source => GraphVerdict::Decided {
            mode,
            denied,
            edge: Some(of_source),
        },
        EdgeBy::Prefix => GraphVerdict::Decided {
            mode,
            denied,
            edge: Some(of_prefix),
        },
        EdgeBy::Group => GraphVerdict::Decided {
            mode,
            denied,
            edge: graph::group_of(host, &whole)?.map(of),
        },
    }))
}

/// The IP protocol number.
const fn number(proto: Proto, source: IpAddr) -> u8 {
    match (proto, source) {
        (Proto::Tcp, _) => 6,
        (Proto::Udp, _) => 17,
        (Proto::Icmp, IpAddr::V4(_)) => 1,
        (Proto::Icmp, IpAddr::V6(_)) => 58,
    }
}

/// An Ethernet frame from the source: a TCP SYN, a UDP datagram or an ICMP echo request.
fn frame(source: IpAddr, proto: Proto, dport: u16) -> Vec<u8> {
    let transport = transport(proto, dport, source.is_ipv4());
    let number = number(proto, source);
    let len = u8::try_from(transport.len()).unwrap_or(u8::MAX);
    let mut frame = vec![0; 12];
    match source {
        IpAddr::V4(source) => {
            frame.extend([
                0x08,
                0x00,
                0x45,
                0,
                0,
                20 + len,
                0,
                0,
                0x40,
                0,
                64,
                number,
                0,
                0,
            ]);
            frame.extend(source.octets());
            frame.extend([127, 0, 0, 1]);
        }
        IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, len, number, 64]);
            frame.extend(source.octets());
            frame.extend(Ipv6Addr::LOCALHOST.octets());
        }
    }
    frame.extend(transport);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn transport(proto: Proto, dport: u16, v4: bool) -> Vec<u8> {
    // From a port of the dynamic range, RFC 6335.
    let mut ports = vec![0xc0, 0];
    ports.extend(dport.to_be_bytes());
    match proto {
        Proto::Tcp => {
            ports.extend([0; 8]);
            ports.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            ports
        }
        Proto::Udp => {
            ports.extend([0, 8, 0, 0]);
            ports
        }
        Proto::Icmp => vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1],
    }
}
