//! Where the operator's SSH session comes from.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::model::shown;

const VARIABLE: &str = "SSH_CONNECTION";

/// The peers of the SSH sessions this process runs in: from its environment, from that of its
/// ancestors (sudo clears it), and from the connections of an sshd among them. Where the variable
/// is set and no peer is found, a warning says so.
pub fn ssh_peers() -> Vec<IpAddr> {
    let mut peers = BTreeSet::new();
    let mut said: Vec<String> = Vec::new();
    said.extend(std::env::var_os(VARIABLE).map(|text| text.to_string_lossy().into_owned()));
    let mut pid = std::process::id();
    while let Some(parent) = parent_of(pid).filter(|parent| *parent > 1) {
        let proc = Path::new("/proc").join(parent.to_string());
        let environ = fs::read(proc.join("environ")).unwrap_or_default();
        said.extend(value_in(&environ));
        let comm = fs::read_to_string(proc.join("comm")).unwrap_or_default();
        if comm.starts_with("sshd") {
            peers.extend(of_sockets(&proc));
        }
        pid = parent;
    }
    peers.extend(said.iter().filter_map(|text| peer_of(text)));
    if let Some(text) = said
        .iter()
        .find(|text| !text.is_empty() && peers.is_empty())
    {
        log::warn!(
            "{VARIABLE} '{}' names no address, so nothing guards your SSH session; 'kernloom shield management add \
             ADDRESS' does",
            shown(text)
        );
    }
    peers.into_iter().collect()
}

/// `client port server port`, sshd(8).
fn peer_of(text: &str) -> Option<IpAddr> {
    let address = text.split_whitespace().next()?;
    let address = address.split('%').next()?; // a link-local one names its interface
    let ip: IpAddr = address.parse().ok()?;
    Some(ip.to_canonical())
}

/// What the variable holds in `/proc/PID/environ`.
fn value_in(environ: &[u8]) -> Option<String> {
    let mut variables = environ.split(|byte| *byte == 0);
    variables.find_map(|variable| {
        let value = variable.strip_prefix(VARIABLE.as_bytes())?;
        let value = value.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// The fourth field of /proc/PID/stat; the second may hold anything, in parentheses.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn of_sockets(proc: &Path) -> Vec<IpAddr> {
    let Ok(files) = fs::read_dir(proc.join("fd")) else {
        return Vec::new();
    };
    let sockets: BTreeSet<String> = files
        .flatten()
        .filter_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            Some(inode.trim_end_matches(']').to_owned())
        })
        .collect();
    ["tcp", "tcp6"]
        .into_iter()
        .flat_map(|table| fs::read_to_string(proc.join("net").join(table)))
        .flat_map(|table| established(&table, &sockets))
        .collect()
}

/// Peers of the established connections with these inodes; the table is /proc/net/tcp or tcp6.
fn established(table: &str, sockets: &BTreeSet<String>) -> Vec<IpAddr> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (state, inode) = (columns.get(3)?, columns.get(9)?);
        if *state != "01" || !sockets.contains(*inode) {
            return None;
        }
        address(columns.get(2)?.split(':').next()?)
    });
    rows.collect()
}

/// Hexadecimal words in the machine's own order, each holding network order bytes.
fn address(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => {
            let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(IpAddr::V6(v6).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_the_peer_first() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer_of("192.0.2.7 51000 198.51.100.1 22"), ip("192.0.2.7"));
        assert_eq!(
            peer_of("2001:db8::7 51000 2001:db8::1 22"),
            ip("2001:db8::7")
        );
        assert_eq!(peer_of("fe80::1%eth0 51000 fe80::2%eth0 22"), ip("fe80::1"));
        assert_eq!(peer_of("::ffff:192.0.2.7 1 ::1 22"), ip("192.0.2.7"));
        assert_eq!(peer_of(""), None);
        let environ = b"HOME=/root\0SSH_CONNECTION=192.0.2.9 1 2 3\0TERM=xterm\0";
        assert_eq!(value_in(environ).as_deref(), Some("192.0.2.9 1 2 3"));
        assert_eq!(value_in(b"XSSH_CONNECTION=192.0.2.9 1 2 3\0"), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn established_connections_of_a_process_name_their_peers() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1\n\
            1: 016433C6:0016 070200C0:C738 01 00000000:00000000 00:00000000 00000000 0 0 222 1\n\
            2: 016433C6:0016 080200C0:C739 01 00000000:00000000 00:00000000 00000000 0 0 333 1\n";
        let sockets = BTreeSet::from(["111".to_owned(), "222".to_owned()]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(established(table, &sockets), [ip("192.0.2.7")]);
        assert_eq!(
            address("B80D0120000000000000000007000000"),
            Some(ip("2001:db8::7"))
        );
    }
}
