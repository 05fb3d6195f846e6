//! The question put to the running program, and its answer in words.

use std::net::IpAddr;

use super::super::opened;
use crate::cli::{Proto, VerdictArgs};
use crate::dataplane::PinDir;
use crate::error::Result;
use crate::model::Source;
use crate::report::{VerdictReport, print};
use crate::runtime::now;

pub(super) fn verdict(pins: &PinDir, args: &VerdictArgs) -> Result<()> {
    let shield = opened(pins)?;
    let lock = pins.lock()?;
    let source = args.source.to_canonical();
    let answer = shield.probe(&frame(source, args.proto, args.dport), &lock)?;
    let decided_by = answer
        .decided_by
        .map(|bits| Source::containing(Source::host(source).octets(), bits));
    let entry = match decided_by {
        Some(prefix) => shield.entry(&prefix)?,
        None => None,
    };
    let report = VerdictReport {
        source,
        dropped: answer.dropped,
        reason: answer.reason,
        entry,
        ceiling: shield.ceiling(),
    };
    let (notes, at) = (shield.notes()?, now()?);
    print(&if args.json {
        report.json(&notes, at)
    } else {
        report.text(&notes, at)
    })
}

/// An Ethernet frame from the source: a TCP SYN, a UDP datagram or an ICMP echo request.
fn frame(source: IpAddr, proto: Proto, dport: u16) -> Vec<u8> {
    let transport = transport(proto, dport, source.is_ipv4());
    let number = match (proto, source) {
        (Proto::Tcp, _) => 6,
        (Proto::Udp, _) => 17,
        (Proto::Icmp, IpAddr::V4(_)) => 1,
        (Proto::Icmp, IpAddr::V6(_)) => 58,
    };
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
            frame.extend(std::net::Ipv6Addr::LOCALHOST.octets());
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
