//! Whom this host is connected to by TCP already, as /proc/net/tcp and tcp6 list it (proc_net_tcp(5)
//! in the kernel's documentation).

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};

use super::sources::tracked;
use crate::error::{Doing, Result};
use crate::model::Source;

/// Of the calling thread's network namespace.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// Up to `most` peers, tracked at `v6_bits`, whose handshake with this host is over.
pub(super) fn connected(v6_bits: u8, most: usize) -> Result<HashSet<Source>> {
    let mut peers = HashSet::new();
    for path in TABLES {
        let table = match File::open(path) {
            // This kernel has no IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            table => table.doing(|| format!("opening {path}"))?,
        };
        // Line by line: a busy host has a hundred thousand of them.
        for line in BufReader::new(table).lines() {
            let line = line.doing(|| format!("reading {path}"))?;
            let Some(octets) = peer_of(&line) else {
                continue;
            };
            peers.insert(tracked(octets, v6_bits));
            if peers.len() >= most {
                return Ok(peers);
            }
        }
    }
    Ok(peers)
}

/// Columns: slot, local address, remote address, state ... An address is words of eight digits, each
/// as this machine stores it, a colon and the port.
fn peer_of(line: &str) -> Option<[u8; 16]> {
    let mut columns = line.split_ascii_whitespace().skip(2);
    let (address, _port) = columns.next()?.split_once(':')?;
    if !is_synchronized(columns.next()?) {
        return None;
    }
    let mut octets = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
    let start = match address.len() {
        8 => 12,
        32 => 0,
        _ => return None,
    };
    for (to, digits) in octets[start..].chunks_exact_mut(4).zip(words(address)) {
        to.copy_from_slice(&u32::from_str_radix(digits?, 16).ok()?.to_ne_bytes());
    }
    Some(octets)
}

fn words(address: &str) -> impl Iterator<Item = Option<&str>> {
    (0..address.len())
        .step_by(8)
        .map(|at| address.get(at..at + 8))
}

/// Whether the peer has answered what was sent to it: the synchronized states of RFC 9293, section
/// 3.3.2. The numbers are those of `include/net/tcp_states.h`.
fn is_synchronized(state: &str) -> bool {
    const SYN_SENT: u8 = 2;
    const SYN_RECV: u8 = 3;
    const CLOSE: u8 = 7;
    const LISTEN: u8 = 10;
    const LAST_KNOWN: u8 = 11;
    u8::from_str_radix(state, 16).is_ok_and(|state| {
        state <= LAST_KNOWN && ![0, SYN_SENT, SYN_RECV, CLOSE, LISTEN].contains(&state)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word as a machine of this byte order prints it.
    fn word(octets: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(octets))
    }

    fn line(address: &str, state: &str) -> String {
        format!("   0: 0100007F:0050 {address}:C350 {state} 00000000:00000000 00:00000000")
    }

    #[test]
    fn peers_of_both_families_are_read_as_the_identity_of_the_data_plane() {
        let v4 = line(&word([192, 0, 2, 7]), "01");
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7];
        assert_eq!(peer_of(&v4), Some(mapped));
        let v6 = [32, 1, 13, 184, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6];
        for octets in [mapped, v6] {
            let address: String = octets.as_chunks().0.iter().map(|o| word(*o)).collect();
            assert_eq!(peer_of(&line(&address, "01")), Some(octets));
        }
    }

    #[test]
    fn only_a_handshake_that_is_over_tells_a_peer() {
        let address = word([192, 0, 2, 7]);
        let told = |state: &u8| peer_of(&line(&address, &format!("{state:02X}"))).is_some();
        let states: Vec<u8> = (0..=255).filter(told).collect();
        assert_eq!(states, [1, 4, 5, 6, 8, 9, 11]);
    }

    #[test]
    fn what_is_no_line_of_the_table_tells_nobody() {
        for odd in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid",
            "",
            "   0: 0100007F:0050 0200007F 01",
            "   0: 0100007F:0050 0200007:C350 01",
            "   0: 0100007F:0050 0200007G:C350 01",
            "   0: 0100007F:0050 0200007\u{e9}:C350 01",
            "   0: 0100007F:0050 0000000000000000000000000000000000000000:C350 01",
            "   0: 0100007F:0050 0200007F:C350",
        ] {
            assert_eq!(peer_of(odd), None, "{odd}");
        }
    }
}
