use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::model::{ParseSourceError, Source};

/// Who is at the other end: one tracked source, or a named group of prefixes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Everyone; the peer of what is sent to a multicast or broadcast address.
    Any,
    Group(String),
    Source(Source),
}

/// Which way an edge points, as this host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer opens towards a port here, or towards one this host forwards to.
    In,
    /// This host, or what it forwards for, opens towards a port of the peer.
    Out,
    /// The peer sends to a multicast or broadcast address.
    Cast,
}

impl Direction {
    pub const ALL: [Self; 3] = [Self::In, Self::Out, Self::Cast];

    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Cast => "cast",
        }
    }
}

/// An IP protocol number and, where the protocol has ports, the service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    pub protocol: u8,
    /// 0 for protocols without ports.
    pub port: u16,
}

/// Protocols by their names here (IANA, "Assigned Internet Protocol Numbers"), and whether they
/// have ports.
const PROTOCOLS: [(u8, &str, bool); 11] = [
    (1, "icmp", false),
    (2, "igmp", false),
    (4, "ipip", false),
    (6, "tcp", true),
    (17, "udp", true),
    (33, "dccp", true),
    (47, "gre", false),
    (50, "esp", false),
    (58, "icmp6", false),
    (132, "sctp", true),
    (136, "udplite", true),
];

impl Service {
    pub const fn new(protocol: u8, port: u16) -> Self {
        Self { protocol, port }
    }

    pub const fn tcp(port: u16) -> Self {
        Self::new(6, port)
    }

    pub const fn udp(port: u16) -> Self {
        Self::new(17, port)
    }

    pub const fn is_tcp(self) -> bool {
        self.protocol == 6
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = PROTOCOLS.iter().find(|known| known.0 == self.protocol);
        let text = match known {
            Some((_, name, true)) => format!("{name}/{}", self.port),
            Some((_, name, false)) if self.port == 0 => (*name).to_owned(),
            Some((_, name, false)) => format!("{name}/{}", self.port),
            None if self.port == 0 => format!("proto-{}", self.protocol),
            None => format!("proto-{}/{}", self.protocol, self.port),
        };
        f.pad(&text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseEdgeError {
    #[error(
        "'{0}' is not a service; write it like tcp/443, udp/53, icmp, icmp6, sctp/3868, gre or proto-89"
    )]
    Service(String),
    #[error("'{0}' is not a direction; it is one of in, out and cast")]
    Direction(String),
    #[error("'{0}' is no group that is defined, and no address or prefix")]
    Peer(String),
    /// One that is nearly one.
    #[error(transparent)]
    Source(ParseSourceError),
}

impl FromStr for Service {
    type Err = ParseEdgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseEdgeError::Service(text.to_owned());
        let (name, port) = match text.split_once('/') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let (protocol, ports) = match PROTOCOLS.iter().find(|known| known.1 == name) {
            Some((number, _, ports)) => (*number, *ports),
            None => {
                let number = name.strip_prefix("proto-").ok_or_else(error)?;
                let number = decimal(number).ok_or_else(error)?;
                let known = PROTOCOLS.iter().find(|known| known.0 == number);
                (number, known.is_some_and(|known| known.2))
            }
        };
        let port = match (port, ports) {
            (Some(port), true) => decimal(port).ok_or_else(error)?,
            (None, false) => 0,
            (Some(_), false) | (None, true) => return Err(error()),
        };
        Ok(Self { protocol, port })
    }
}

/// Digits only: `u16::from_str` would also take a sign.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

impl FromStr for Direction {
    type Err = ParseEdgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|direction| direction.name() == text)
            .ok_or_else(|| ParseEdgeError::Direction(text.to_owned()))
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Peer {
    /// Reads what `Display` writes: `any`, an address or prefix, else the name of a group.
    pub fn parse(text: &str, is_group: impl Fn(&str) -> bool) -> Result<Self, ParseEdgeError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        if is_group(text) {
            return Ok(Self::Group(text.to_owned()));
        }
        text.parse().map(Self::Source).map_err(|error| match error {
            ParseSourceError::Syntax(_) => ParseEdgeError::Peer(text.to_owned()),
            near @ (ParseSourceError::Length { .. } | ParseSourceError::HostBits { .. }) => {
                ParseEdgeError::Source(near)
            }
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("any"),
            Self::Group(name) => f.pad(name),
            Self::Source(source) => source.fmt(f),
        }
    }
}

/// One line of the graph: who may open what, in which direction. Ordered as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    pub direction: Direction,
    pub peer: Peer,
    pub service: Service,
}

/// Why no packet would match what names a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error(
        "{prefix} is neither one address nor {tracked}: name one of those, or make it a group: --group name={prefix}"
    )]
    Between { prefix: Source, tracked: Source },
    #[error("{0} is wider than what is tracked as one source; make it a group: --group name={0}")]
    Wide(Source),
    #[error(
        "what is sent to multicast and broadcast addresses has the peer 'any', and nothing else has: \
         give --direction cast and 'any' together"
    )]
    Any,
    #[error("{peer} is no {protocol} peer: {protocol} is {version} alone; write {instead}")]
    Version {
        peer: Source,
        protocol: &'static str,
        version: &'static str,
        instead: &'static str,
    },
    #[error(
        "{peer} is {what}, which no packet that is judged comes from or is opened to: name the host itself{or}"
    )]
    Nobody {
        peer: Source,
        what: &'static str,
        or: &'static str,
    },
}

impl Edge {
    /// Whether packets can match it, where IPv6 is tracked at `v6_bits`: its peer is one address, or
    /// a tracked prefix and so everyone in it.
    pub fn check(&self, v6_bits: u8) -> Result<(), PeerError> {
        if (self.direction == Direction::Cast) != (self.peer == Peer::Any) {
            return Err(PeerError::Any);
        }
        let Peer::Source(source) = &self.peer else {
            return Ok(());
        };
        let tracked = source.tracked_bits(v6_bits);
        match source.bits() {
            bits if bits < tracked => Err(PeerError::Wide(*source)),
            bits if bits == tracked || bits == 128 => Ok(()),
            _ => Err(PeerError::Between {
                prefix: *source,
                tracked: Source::tracked(source.ip(), v6_bits),
            }),
        }
    }
}

impl Edge {
    /// What [`Self::check`] lets pass, for older files hold it, and no packet matches all the same:
    /// asked of what an operator writes now.
    pub fn check_written(&self) -> Result<(), PeerError> {
        let Peer::Source(peer) = self.peer else {
            return Ok(());
        };
        let version = |protocol, version, instead| {
            Err(PeerError::Version {
                peer,
                protocol,
                version,
                instead,
            })
        };
        let nobody = |what, or| Err(PeerError::Nobody { peer, what, or });
        let cast = "; for what is sent to such an address, give --direction cast and 'any'";
        let ip = peer.ip();
        match (ip, self.service.protocol) {
            _ if ip.is_multicast() => nobody("a multicast address", cast),
            _ if ip.is_loopback() => nobody("a loopback address", ""),
            (IpAddr::V4(Ipv4Addr::BROADCAST), _) => nobody("the broadcast address", cast),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => {
                nobody("the unspecified address or prefix", "")
            }
            (IpAddr::V6(_), 1) => version("icmp", "IPv4", "icmp6"),
            (IpAddr::V4(_), 58) => version("icmp6", "IPv6", "icmp"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::In => "->",
            Direction::Out => "<-",
            Direction::Cast => "=>",
        };
        f.pad(&format!("{} {arrow} {}", self.peer, self.service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_read_back_as_written() {
        for text in [
            "tcp/443",
            "udp/65535",
            "tcp/0",
            "icmp",
            "icmp6",
            "sctp/3868",
            "gre",
            "proto-89",
        ] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        assert_eq!(
            "proto-6/80".parse::<Service>().unwrap().to_string(),
            "tcp/80"
        );
    }

    #[test]
    fn a_bad_service_says_how_to_write_one() {
        for text in [
            "",
            "tcp",
            "tcp/",
            "tcp/+1",
            "tcp/65536",
            "icmp/8",
            "proto-256",
            "proto-",
            "http",
            "443",
        ] {
            let error = text.parse::<Service>().unwrap_err().to_string();
            assert!(error.contains("write it like tcp/443"), "{text}: {error}");
        }
    }

    #[test]
    fn an_edge_prints_its_direction() {
        let edge = |direction| Edge {
            direction,
            peer: Peer::Group("office".to_owned()),
            service: Service::tcp(22),
        };
        assert_eq!(edge(Direction::In).to_string(), "office -> tcp/22");
        assert_eq!(edge(Direction::Out).to_string(), "office <- tcp/22");
        assert_eq!(edge(Direction::Cast).to_string(), "office => tcp/22");
    }

    #[test]
    fn a_peer_is_any_a_known_group_or_an_address() {
        let parse = |text| Peer::parse(text, |name| name == "office");
        assert_eq!(parse("any").unwrap(), Peer::Any);
        assert_eq!(parse("office").unwrap(), Peer::Group("office".to_owned()));
        assert_eq!(
            parse("192.0.2.7").unwrap(),
            Peer::Source("192.0.2.7".parse().unwrap())
        );
        assert_eq!(
            parse("ofice").unwrap_err().to_string(),
            "'ofice' is no group that is defined, and no address or prefix"
        );
        assert_eq!(
            parse("10.55.0.2/24").unwrap_err().to_string(),
            "'10.55.0.2/24' has bits set after the prefix; did you mean 10.55.0.0/24?"
        );
    }
}
