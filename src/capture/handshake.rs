//! TCP handshakes in a capture: who proved that its address is not made up, and to whom.
//!
//! Each end proves itself by the other's initial sequence number (RFC 9293, 3.5): the server when
//! its SYN-ACK acknowledges the SYN, the client when its ACK acknowledges the SYN-ACK.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;

use super::packet::{Ends, Segment};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Handshakes under way that are remembered, in each of two generations: a flood of SYNs takes the
/// place of what is older.
const MOST: usize = 65_536;

/// Client and server, each with its port.
type Flow = ((IpAddr, u16), (IpAddr, u16));

#[derive(Debug, Clone, Copy)]
struct Begun {
    client: u32,
    /// The SYN-ACK's number.
    server: Option<u32>,
}

/// One end answered what the other opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub of: IpAddr,
    pub to: IpAddr,
    /// By a number that only who received the other's could know; not if it refused.
    pub proves: bool,
}

/// Handshakes under way.
#[derive(Debug, Default)]
pub struct Handshakes {
    young: HashMap<Flow, Begun>,
    old: HashMap<Flow, Begun>,
}

impl Handshakes {
    /// Takes in a frame; what it answers.
    pub fn see(&mut self, ends: &Ends, frame: &[u8]) -> Option<Answer> {
        let segment = ends.segment(frame)?;
        match segment.flags & (SYN | RST | ACK) {
            SYN => self.begin(&segment),
            flags if flags == SYN | ACK => return self.answer(&segment),
            ACK => return self.complete(&segment),
            flags if flags == RST | ACK => return self.refuse(&segment),
            _ => {}
        }
        None
    }

    fn begin(&mut self, segment: &Segment) {
        if self.young.len() >= MOST {
            self.old = mem::take(&mut self.young);
        }
        let begun = Begun {
            client: segment.number,
            server: None,
        };
        self.young.insert((segment.from, segment.to), begun);
    }

    fn begun(&self, flow: &Flow) -> Option<&Begun> {
        self.young.get(flow).or_else(|| self.old.get(flow))
    }

    /// RFC 9293, 3.5.2: of a port where nobody listens.
    fn refuse(&self, segment: &Segment) -> Option<Answer> {
        let begun = self.begun(&(segment.to, segment.from))?;
        let answers = segment.acknowledged == begun.client.wrapping_add(1);
        answers.then(|| Answer::in_segment(segment, false))
    }

    fn answer(&mut self, segment: &Segment) -> Option<Answer> {
        let flow = (segment.to, segment.from);
        let begun = match self.young.get_mut(&flow) {
            Some(begun) => begun,
            None => self.old.get_mut(&flow)?,
        };
        (segment.acknowledged == begun.client.wrapping_add(1)).then(|| {
            begun.server = Some(segment.number);
            Answer::in_segment(segment, true)
        })
    }

    fn complete(&mut self, segment: &Segment) -> Option<Answer> {
        let flow = (segment.from, segment.to);
        let begun = self.begun(&flow)?;
        let proven = segment.acknowledged == begun.server?.wrapping_add(1)
            && segment.number == begun.client.wrapping_add(1);
        proven.then(|| {
            self.young.remove(&flow);
            self.old.remove(&flow);
            Answer::in_segment(segment, true)
        })
    }
}

impl Answer {
    const fn in_segment(segment: &Segment, proves: bool) -> Self {
        Self {
            of: segment.from.0,
            to: segment.to.0,
            proves,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP segment over IPv4 in Ethernet.
    fn frame(from: [u8; 4], to: [u8; 4], ports: [u16; 2], flags: u8, numbers: [u32; 2]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        for port in ports {
            frame.extend(port.to_be_bytes());
        }
        for number in numbers {
            frame.extend(number.to_be_bytes());
        }
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame
    }

    const CLIENT: [u8; 4] = [192, 0, 2, 7];
    const SERVER: [u8; 4] = [198, 51, 100, 1];

    fn see(all: &mut Handshakes, frame: &[u8]) -> Option<String> {
        let Answer { of, to, proves } = all.see(&Ends::of(frame).unwrap(), frame)?;
        let refuses = if proves { "" } else { " no" };
        Some(format!("{of} to {to}{refuses}"))
    }

    fn syn(number: u32) -> Vec<u8> {
        frame(CLIENT, SERVER, [40_000, 443], SYN, [number, 0])
    }

    fn syn_ack(number: u32, acknowledged: u32) -> Vec<u8> {
        let numbers = [number, acknowledged];
        frame(SERVER, CLIENT, [443, 40_000], SYN | ACK, numbers)
    }

    fn ack(number: u32, acknowledged: u32) -> Vec<u8> {
        let numbers = [number, acknowledged];
        frame(CLIENT, SERVER, [40_000, 443], ACK, numbers)
    }

    #[test]
    fn a_refusal_answers_and_proves_nothing() {
        let mut all = Handshakes::default();
        let reset =
            |acknowledged| frame(SERVER, CLIENT, [443, 40_000], RST | ACK, [0, acknowledged]);
        assert_eq!(see(&mut all, &reset(8)), None, "nothing was opened");
        see(&mut all, &syn(7));
        assert_eq!(see(&mut all, &reset(7)), None, "not what was opened");
        assert_eq!(
            see(&mut all, &reset(8)).as_deref(),
            Some("198.51.100.1 to 192.0.2.7 no")
        );
    }

    #[test]
    fn each_end_is_proven_by_the_others_number() {
        let mut all = Handshakes::default();
        assert_eq!(see(&mut all, &syn(u32::MAX)), None);
        assert_eq!(
            see(&mut all, &syn_ack(7_000, 0)).as_deref(),
            Some("198.51.100.1 to 192.0.2.7")
        );
        assert_eq!(
            see(&mut all, &ack(0, 7_001)).as_deref(),
            Some("192.0.2.7 to 198.51.100.1")
        );
        assert_eq!(see(&mut all, &ack(0, 7_001)), None, "it is done");
    }

    #[test]
    fn who_did_not_see_the_answer_proves_nothing() {
        let mut all = Handshakes::default();
        assert_eq!(see(&mut all, &ack(1, 7_001)), None, "without a SYN");
        see(&mut all, &syn(0));
        assert_eq!(see(&mut all, &ack(1, 7_001)), None, "without an answer");
        assert_eq!(see(&mut all, &syn_ack(7_000, 5)), None, "to another SYN");
        see(&mut all, &syn_ack(7_000, 1));
        for (number, acknowledged) in [(1, 7_000), (1, 7_002), (2, 7_001)] {
            assert_eq!(see(&mut all, &ack(number, acknowledged)), None);
        }
        let reset = frame(CLIENT, SERVER, [40_000, 443], RST | ACK, [1, 7_001]);
        assert_eq!(see(&mut all, &reset), None, "as a half-open scan ends");
        assert_eq!(
            see(
                &mut all,
                &frame(CLIENT, SERVER, [40_001, 443], ACK, [1, 7_001])
            ),
            None
        );
        assert!(see(&mut all, &ack(1, 7_001)).is_some());
    }

    #[test]
    fn what_is_cut_or_a_fragment_is_no_segment_and_a_flood_is_bounded() {
        let mut all = Handshakes::default();
        let whole = syn(0);
        assert_eq!(see(&mut all, &whole[..40]), None);
        let mut fragment = whole;
        fragment[14 + 7] = 1;
        assert_eq!(see(&mut all, &fragment), None);
        assert!(all.young.is_empty());
        for port in 0..3 * 65_536u32 {
            let source = (10 << 24 | port).to_be_bytes();
            see(&mut all, &frame(source, SERVER, [40_000, 443], SYN, [0, 0]));
        }
        assert_eq!((all.young.len(), all.old.len()), (MOST, MOST));
    }
}
