//! Frames, built by hand: what the tests and the benchmarks feed to the program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// What follows the IP header.
#[derive(Debug, Clone, Copy)]
pub enum L4 {
    Tcp {
        sport: u16,
        dport: u16,
        flags: u8,
    },
    Udp {
        sport: u16,
        dport: u16,
    },
    IcmpEcho,
    /// Any protocol, any bytes.
    Raw {
        proto: u8,
        payload: &'static [u8],
    },
}

/// One frame to be; `build` writes it out.
#[derive(Debug, Clone)]
pub struct Frame {
    source: IpAddr,
    l4: L4,
    vlans: Vec<(u16, u16)>,
    extensions: Vec<u8>,
    ttl: u8,
    pad_to: usize,
    destination: Option<IpAddr>,
    /// Identification, offset in 8 bytes, whether more follow.
    fragment: Option<(u16, u16, bool)>,
    /// TCP sequence and acknowledgment number.
    number: u32,
    everyone: bool,
    leaving: bool,
}

pub const DOT1Q: u16 = 0x8100;
pub const DOT1AD: u16 = 0x88a8;
const HOST_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

impl Frame {
    pub fn new(source: IpAddr, l4: L4) -> Self {
        Self {
            source,
            l4,
            vlans: Vec::new(),
            extensions: Vec::new(),
            ttl: 64,
            pad_to: 60,
            destination: None,
            fragment: None,
            number: 0,
            everyone: false,
            leaving: false,
        }
    }

    /// To another address than the host's.
    pub fn to(mut self, destination: IpAddr) -> Self {
        self.destination = Some(destination);
        self
    }

    /// In an Ethernet frame to ff:ff:ff:ff:ff:ff.
    pub fn broadcast(mut self) -> Self {
        self.everyone = true;
        self
    }

    /// From the host to the address given as source; ports as given.
    pub fn leaving(mut self) -> Self {
        self.leaving = true;
        self
    }

    /// Sequence and acknowledgment number of TCP.
    pub fn number(mut self, number: u32) -> Self {
        self.number = number;
        self
    }

    /// One fragment: a first carries the headers, a later one only bytes.
    pub fn fragment(mut self, id: u16, offset: u16, more: bool) -> Self {
        self.fragment = Some((id, offset, more));
        self
    }

    /// A SYN to `dport`.
    pub fn syn(source: IpAddr, dport: u16) -> Self {
        Self::new(
            source,
            L4::Tcp {
                sport: 40_000,
                dport,
                flags: SYN,
            },
        )
    }

    pub fn ack(source: IpAddr, dport: u16) -> Self {
        Self::new(
            source,
            L4::Tcp {
                sport: 40_000,
                dport,
                flags: ACK,
            },
        )
    }

    pub fn udp(source: IpAddr, sport: u16, dport: u16) -> Self {
        Self::new(source, L4::Udp { sport, dport })
    }

    /// Adds a tag inside those already there.
    pub fn vlan(mut self, tpid: u16, id: u16) -> Self {
        self.vlans.push((tpid, id));
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv6 only: extension headers of these protocol numbers, in order, 8 bytes each.
    pub fn extensions(mut self, chain: &[u8]) -> Self {
        self.extensions = chain.to_vec();
        self
    }

    /// As short as its headers, not padded to Ethernet's least.
    pub fn unpadded(mut self) -> Self {
        self.pad_to = 0;
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.everyone {
            frame[..6].fill(0xff);
        }
        for (tpid, id) in &self.vlans {
            frame.extend(tpid.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        let (proto, mut l4) = self.transport();
        if self.fragment.is_some_and(|(_, offset, _)| offset > 0) {
            l4 = vec![0xaa; 24];
        }
        let at = frame.len();
        match self.source {
            IpAddr::V4(source) => {
                ipv4(&mut frame, source, proto, self.ttl, &l4);
                if let Some((id, offset, more)) = self.fragment {
                    frame[at + 6..at + 8].copy_from_slice(&id.to_be_bytes());
                    let word = offset | u16::from(more) << 13;
                    frame[at + 8..at + 10].copy_from_slice(&word.to_be_bytes());
                }
            }
            IpAddr::V6(source) => {
                let (mut proto, mut l4) = behind_extensions(&self.extensions, proto, &l4);
                if let Some((id, offset, more)) = self.fragment {
                    let mut header = vec![proto, 0];
                    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    header.extend(u32::from(id).to_be_bytes());
                    header.extend(l4);
                    (proto, l4) = (44, header);
                }
                ipv6(&mut frame, source, proto, self.ttl, &l4);
            }
        }
        self.redirect(&mut frame[at + 2..]);
        if frame.len() < self.pad_to {
            frame.resize(self.pad_to, 0);
        }
        frame
    }

    /// Sets the destination, or turns the packet round, in an IP header.
    fn redirect(&self, ip: &mut [u8]) {
        let (source, destination, len) = if self.source.is_ipv4() {
            (12, 16, 4)
        } else {
            (8, 24, 16)
        };
        match self.destination {
            Some(IpAddr::V4(to)) => {
                ip[destination..destination + len].copy_from_slice(&to.octets())
            }
            Some(IpAddr::V6(to)) => {
                ip[destination..destination + len].copy_from_slice(&to.octets())
            }
            None => {}
        }
        if self.leaving {
            let (head, tail) = ip.split_at_mut(destination);
            head[source..source + len].swap_with_slice(&mut tail[..len]);
        }
    }

    fn transport(&self) -> (u8, Vec<u8>) {
        match self.l4 {
            L4::Tcp {
                sport,
                dport,
                flags,
            } => {
                let mut tcp = Vec::from(sport.to_be_bytes());
                tcp.extend(dport.to_be_bytes());
                tcp.extend(self.number.to_be_bytes());
                tcp.extend(self.number.to_be_bytes());
                // 6 words: one option, the MSS.
                tcp.extend([0x60, flags, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
                (6, tcp)
            }
            L4::Udp { sport, dport } => {
                let mut udp = Vec::from(sport.to_be_bytes());
                udp.extend(dport.to_be_bytes());
                udp.extend([0, 8, 0, 0]);
                (17, udp)
            }
            L4::IcmpEcho => {
                let (proto, kind) = if self.source.is_ipv4() {
                    (1, 8)
                } else {
                    (58, 128)
                };
                (proto, vec![kind, 0, 0, 0, 0, 1, 0, 1])
            }
            L4::Raw { proto, payload } => (proto, payload.to_vec()),
        }
    }
}

/// The first next-header value, and the chain with the transport behind it.
fn behind_extensions(chain: &[u8], proto: u8, l4: &[u8]) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (index, _) in chain.iter().enumerate() {
        bytes.push(chain.get(index + 1).copied().unwrap_or(proto));
        // Length 0: 8 bytes, for all but the authentication header, which says the same as 0 too.
        bytes.extend([0; 7]);
    }
    bytes.extend(l4);
    (chain.first().copied().unwrap_or(proto), bytes)
}

fn ipv4(frame: &mut Vec<u8>, source: Ipv4Addr, proto: u8, ttl: u8, l4: &[u8]) {
    frame.extend([0x08, 0x00, 0x45, 0]);
    let total = u16::try_from(20 + l4.len()).unwrap();
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, ttl, proto, 0, 0]);
    frame.extend(source.octets());
    frame.extend(HOST_V4.octets());
    frame.extend(l4);
}

fn ipv6(frame: &mut Vec<u8>, source: Ipv6Addr, proto: u8, ttl: u8, l4: &[u8]) {
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(l4.len()).unwrap().to_be_bytes());
    frame.extend([proto, ttl]);
    frame.extend(source.octets());
    frame.extend(HOST_V6.octets());
    frame.extend(l4);
}
