//! As much of a captured packet as can be told simply.

use std::net::IpAddr;

const TCP: u8 = 6;

/// Who sent an IP packet to whom, and where in the frame its header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub from: IpAddr,
    pub to: IpAddr,
    header: usize,
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: (IpAddr, u16),
    pub(super) to: (IpAddr, u16),
    pub(super) number: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
}

impl Ends {
    /// `None` for what is no IP packet.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let mut at = 12;
        // Two tags at most: more are no traffic to choose by address.
        for _ in 0..2 {
            if matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
                at += 4;
            }
        }
        let header = at + 2;
        let v4 = |from: usize| -> Option<IpAddr> {
            let octets = frame.get(header + from..header + from + 4)?;
            Some(<[u8; 4]>::try_from(octets).ok()?.into())
        };
        let v6 = |from: usize| -> Option<IpAddr> {
            let octets = frame.get(header + from..header + from + 16)?;
            Some(<[u8; 16]>::try_from(octets).ok()?.into())
        };
        let (from, to) = match frame.get(at..header)? {
            [0x08, 0x00] => (v4(12)?, v4(16)?),
            [0x86, 0xdd] => (v6(8)?, v6(24)?),
            _ => return None,
        };
        Some(Self { from, to, header })
    }

    /// The TCP segment in it; none in a fragment or behind extension headers.
    pub(super) fn segment(&self, frame: &[u8]) -> Option<Segment> {
        let ip = frame.get(self.header..)?;
        let tcp = if self.from.is_ipv4() {
            let whole = matches!(ip.get(6..8)?, [flags, 0] if flags & 0x3f == 0);
            if !whole || *ip.get(9)? != TCP {
                return None;
            }
            ip.get(usize::from(*ip.first()? & 0xf) * 4..)?
        } else {
            if *ip.get(6)? != TCP {
                return None;
            }
            ip.get(40..)?
        };
        let word = |at: usize| -> Option<u32> {
            let bytes = tcp.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let [a, b, c, d] = word(0)?.to_be_bytes();
        Some(Segment {
            from: (self.from, u16::from_be_bytes([a, b])),
            to: (self.to, u16::from_be_bytes([c, d])),
            number: word(4)?,
            acknowledged: word(8)?,
            flags: *tcp.get(13)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_packet_are_found_behind_tags_and_nowhere_else() {
        let named = |frame: &[u8]| {
            let ends = Ends::of(frame).unwrap();
            (ends.from.to_string(), ends.to.to_string())
        };
        let mut v4 = vec![0; 12];
        v4.extend([0x81, 0x00, 0, 5, 0x08, 0x00, 0x45]);
        v4.extend([0; 11]);
        v4.extend([192, 0, 2, 7, 198, 51, 100, 1]);
        assert_eq!(
            named(&v4),
            ("192.0.2.7".to_owned(), "198.51.100.1".to_owned())
        );
        let mut v6 = vec![0; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
        v6.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        v6.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(named(&v6), ("2001:db8::7".to_owned(), "fe80::1".to_owned()));
        assert_eq!(Ends::of(&v6[..50]), None);
        assert_eq!(Ends::of(&[0; 60]), None);
    }
}
