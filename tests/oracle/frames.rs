//! Frames nobody sends on purpose, and those everybody does.

use std::net::{Ipv4Addr, Ipv6Addr};

/// SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_possible_truncation, reason = "below n, which is a usize")]
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn word(&mut self) -> u16 {
        let bytes = self.next().to_le_bytes();
        u16::from_le_bytes([bytes[0], bytes[1]])
    }
}

/// Few enough that policy meets them, in several prefixes.
pub fn v4_source(rng: &mut Rng) -> Ipv4Addr {
    let [a, b] = [rng.below(3), rng.below(6)].map(|n| u8::try_from(n).unwrap());
    Ipv4Addr::new(10, 7, a, b)
}

pub fn v6_source(rng: &mut Rng) -> Ipv6Addr {
    let host = u16::try_from(rng.below(4)).unwrap();
    match rng.below(8) {
        0 => Ipv6Addr::UNSPECIFIED,
        1 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host),
        _ => {
            let site = u16::try_from(rng.below(2)).unwrap();
            let net = u16::try_from(rng.below(3)).unwrap();
            Ipv6Addr::new(0x2001, 0xdb8, site, net, host << 8, 0, 0, host)
        }
    }
}

/// One frame of 14 to 3 500 bytes.
pub fn frame(rng: &mut Rng) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if rng.one_in(6) {
        for _ in 0..rng.below(7) {
            frame.extend(rng.pick(&[0x8100u16, 0x88a8]).to_be_bytes());
            frame.extend(rng.word().to_be_bytes());
        }
    }
    let v4 = rng.one_in(2);
    let kind = match (rng.below(40), v4) {
        (0, _) => rng.pick(&[0x0806, 0x88cc, 0x8863, 0x0000, 0x86de, 0x0801, 0x9100]),
        // The other family's type: a version that contradicts it.
        (1, true) | (2.., false) => 0x86dd,
        (1, false) | (2.., true) => 0x0800u16,
    };
    frame.extend(kind.to_be_bytes());
    let l3 = frame.len();
    if v4 {
        ipv4(rng, &mut frame);
    } else {
        ipv6(rng, &mut frame);
    }
    // Never the addresses: each new source takes a slot of the table for good.
    let source = if v4 {
        l3 + 12..l3 + 16
    } else {
        l3 + 8..l3 + 24
    };
    if kind == if v4 { 0x0800 } else { 0x86dd } && rng.one_in(16) {
        let at = rng.below(frame.len());
        if at > l3 && !source.contains(&at) {
            frame[at] = rng.byte();
        }
    }
    // As much as one buffer holds: all the kernel shows to the plain program.
    frame.truncate(3_500);
    if rng.one_in(8) {
        frame.truncate(14 + rng.below(frame.len() - 13));
    } else if rng.one_in(2) && frame.len() < 60 {
        frame.resize(60, 0);
    } else if frame.len() < 3_000 && rng.one_in(16) {
        // Trailing bytes that look like more of the packet.
        for _ in 0..rng.below(200) {
            frame.push(rng.byte());
        }
    }
    frame
}

fn ipv4(rng: &mut Rng, frame: &mut Vec<u8>) {
    let options = if rng.one_in(8) { rng.below(11) * 4 } else { 0 };
    let proto = rng.pick(&[6u8, 6, 6, 17, 17, 1, 1, 58, 47, 132, 2, 44, 51]);
    let l4 = transport(rng, proto);
    let total = 20 + options + l4.len();
    let total = match rng.below(24) {
        0 => rng.below(70),
        1 => total + 1 + rng.below(100),
        2 => total - rng.below(l4.len() + 1),
        _ => total,
    };
    let ihl = match rng.below(24) {
        0 => rng.below(16),
        _ => 5 + options / 4,
    };
    let frag: u16 = match rng.below(12) {
        0 => 0x2000,
        1 => 0x2000 | rng.pick(&[1, 2, 185, 0x1000, 0x1fff]),
        2 => rng.pick(&[1, 2, 185, 0x1000, 0x1fff]),
        3 => 0x8000,
        _ => 0x4000,
    };
    let version = if rng.one_in(40) { rng.byte() & 15 } else { 4 };
    frame.push(version << 4 | u8::try_from(ihl).unwrap());
    frame.push(0);
    frame.extend(u16::try_from(total).unwrap().to_be_bytes());
    frame.extend(rng.word().to_be_bytes());
    frame.extend(frag.to_be_bytes());
    frame.extend([rng.pick(&[64, 128, 255, 1, 57]), proto, 0, 0]);
    frame.extend(v4_source(rng).octets());
    frame.extend([198, 51, 100, 1]);
    for _ in 0..options {
        frame.push(rng.byte());
    }
    frame.extend(l4);
}

fn ipv6(rng: &mut Rng, frame: &mut Vec<u8>) {
    let proto = rng.pick(&[6u8, 6, 6, 17, 17, 58, 58, 58, 1, 59, 132, 50]);
    let mut chain = Vec::new();
    if rng.one_in(4) {
        for _ in 0..rng.below(9) {
            chain.push(rng.pick(&[0u8, 43, 43, 44, 60, 60, 51, 135]));
        }
    }
    let mut payload = Vec::new();
    for (index, kind) in chain.iter().enumerate() {
        extension(
            rng,
            &mut payload,
            *kind,
            *chain.get(index + 1).unwrap_or(&proto),
        );
    }
    payload.extend(transport(rng, proto));
    let length = match rng.below(24) {
        0 => rng.below(80),
        1 => payload.len() + 1 + rng.below(100),
        2 => payload.len() - rng.below(payload.len() + 1),
        _ => payload.len(),
    };
    let version = if rng.one_in(40) { rng.byte() & 15 } else { 6 };
    frame.extend([version << 4, 0, 0, 0]);
    frame.extend(u16::try_from(length).unwrap().to_be_bytes());
    frame.push(*chain.first().unwrap_or(&proto));
    frame.push(rng.pick(&[64, 255, 255, 1, 1, 128]));
    frame.extend(v6_source(rng).octets());
    frame.extend(Ipv6Addr::LOCALHOST.octets());
    frame.extend(payload);
}

fn extension(rng: &mut Rng, payload: &mut Vec<u8>, kind: u8, next: u8) {
    let length = match rng.below(16) {
        0 => rng.byte(),
        1..4 => rng.byte() & 3,
        _ => 0,
    };
    let second = if kind == 44 { rng.byte() } else { length };
    payload.extend([next, second]);
    match kind {
        44 => payload.extend(rng.pick(&[[0u8, 0], [0, 1], [0, 8], [5, 0xa9], [0, 6]])),
        43 => payload.extend([rng.pick(&[0u8, 0, 2, 3, 4]), rng.byte() & 1]),
        _ => payload.extend([rng.byte(), rng.byte()]),
    }
    payload.extend([0; 4]);
    let size = match kind {
        44 => 8,
        51 => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    };
    // Mostly as long as it says.
    if !rng.one_in(16) {
        payload.resize(payload.len() + size - 8, 0);
    }
}

fn transport(rng: &mut Rng, proto: u8) -> Vec<u8> {
    let port =
        |rng: &mut Rng| rng.pick(&[0u16, 22, 53, 80, 443, 443, 8_443, 40_000, 50_000, 65_535]);
    let mut bytes = Vec::new();
    bytes.extend(port(rng).to_be_bytes());
    bytes.extend(port(rng).to_be_bytes());
    match proto {
        6 => {
            bytes.extend([0; 8]);
            let words = if rng.one_in(8) {
                rng.byte() & 15
            } else {
                rng.pick(&[5u8, 6, 8, 10])
            };
            let flags = if rng.one_in(4) {
                rng.byte()
            } else {
                rng.pick(&[0x02u8, 0x02, 0x10, 0x18, 0x12, 0x04, 0x14, 0xc2])
            };
            bytes.extend([words << 4, flags]);
            bytes.extend(rng.pick(&[0xfaf0u16, 64_240, 1_024]).to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(rng.pick(&[[2u8, 4, 5, 0xb4], [2, 4, 5, 0x50], [1, 1, 8, 10]]));
            bytes.resize(bytes.len() + rng.pick(&[0, 0, 16, 36, 200, 1_300]), 0);
        }
        17 => {
            let payload = rng.pick(&[0usize, 1, 40, 500, 1_200]);
            let length = if rng.one_in(8) {
                rng.word()
            } else {
                u16::try_from(8 + payload).unwrap()
            };
            bytes.extend(length.to_be_bytes());
            bytes.resize(8 + payload, 0);
        }
        1 | 58 => {
            bytes.clear();
            let kind = rng.pick(&[
                0u8, 1, 2, 3, 4, 5, 8, 11, 12, 13, 100, 127, 128, 129, 130, 131, 132, 133, 134,
                135, 136, 137, 139, 140, 141, 142, 143, 144, 147, 148, 149, 150, 151, 153, 154,
            ]);
            bytes.push(kind);
            bytes.resize(8 + rng.pick(&[0, 0, 16, 56]), 0);
        }
        _ => bytes.resize(rng.below(64), 0),
    }
    if rng.one_in(10) {
        bytes.truncate(rng.below(bytes.len() + 1));
    }
    bytes
}
