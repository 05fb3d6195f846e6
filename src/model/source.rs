use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::shown;

/// A remote address or prefix that sends.
///
/// IPv4 is carried as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), so both families are one type, one
/// table key and one code path: `bits` counts from the left of the 128, and an IPv4 /24 has 120.
/// Serialised as it is displayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source {
    addr: [u8; 16],
    bits: u8,
}

/// fe80::/10, IPv6 link-local.
const LINK_LOCAL: u128 = 0xfe80 << 112;
const LINK_LOCAL_BITS: u8 = 10;

/// Bits in front of an IPv4 address in its mapped form.
const MAPPED_BITS: u8 = 96;

impl Source {
    /// `::`, RFC 4291, 2.5.2: stands where there is no source.
    pub const UNSPECIFIED: Self = Self {
        addr: [0; 16],
        bits: 128,
    };

    /// A single address.
    pub fn host(ip: IpAddr) -> Self {
        Self {
            addr: mapped(ip),
            bits: 128,
        }
    }

    /// The prefix of `bits` (of 128, mapped form) that holds `addr`; longer lengths count as 128.
    #[inline]
    pub fn containing(addr: [u8; 16], bits: u8) -> Self {
        let bits = bits.min(128);
        let addr = (u128::from_be_bytes(addr) & mask(bits)).to_be_bytes();
        Self { addr, bits }
    }

    /// The prefix of `bits` that holds it, if there is one: no IPv6 prefix holds an IPv4 address.
    #[inline]
    pub fn widened(&self, bits: u8) -> Option<Self> {
        Some(Self::containing(self.addr, bits)).filter(|prefix| prefix.contains(self))
    }

    /// The identity under which a packet from this address is counted: the address itself for
    /// IPv4 and for IPv6 link-local (RFC 4291, 2.5.6: all neighbours share one prefix, the gateway
    /// among them), its prefix of `v6_bits` for other IPv6.
    pub fn tracked(ip: IpAddr, v6_bits: u8) -> Self {
        let host = Self::host(ip);
        Self::containing(host.addr, host.tracked_bits(v6_bits))
    }

    /// Length of the identity that packets from this prefix have, see [`Self::tracked`].
    #[inline]
    pub fn tracked_bits(&self, v6_bits: u8) -> u8 {
        if self.is_ipv4() || self.is_inside(LINK_LOCAL, LINK_LOCAL_BITS) {
            128
        } else {
            v6_bits
        }
    }

    fn is_inside(&self, addr: u128, bits: u8) -> bool {
        self.bits >= bits && u128::from_be_bytes(self.addr) & mask(bits) == addr
    }

    /// Network byte order, IPv4 in mapped form.
    pub const fn octets(&self) -> [u8; 16] {
        self.addr
    }

    /// The upper and the lower 64 bits of the address.
    #[inline]
    pub const fn halves(&self) -> (u64, u64) {
        let [a, b, c, d, e, f, g, h, lower @ ..] = self.addr;
        let upper = [a, b, c, d, e, f, g, h];
        (u64::from_be_bytes(upper), u64::from_be_bytes(lower))
    }

    /// Prefix length of the 128 bits of the mapped form.
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    pub fn is_ipv4(&self) -> bool {
        let (upper, lower) = self.halves();
        self.bits >= MAPPED_BITS && upper == 0 && lower >> 32 == 0xffff
    }

    /// Whether it is every address of a family: `0.0.0.0/0` or `::/0`.
    pub fn is_everyone(&self) -> bool {
        self.bits == if self.is_ipv4() { MAPPED_BITS } else { 0 }
    }

    /// The prefixes of one family each that hold it: both, of everyone in all 128 bits; else itself.
    pub fn by_family(self) -> impl Iterator<Item = Self> {
        let v4 = Self::containing(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(), MAPPED_BITS);
        [self].into_iter().chain((self.bits == 0).then_some(v4))
    }

    /// The first address of the prefix.
    pub fn ip(&self) -> IpAddr {
        let v6 = Ipv6Addr::from(self.addr);
        if self.bits >= MAPPED_BITS {
            v6.to_canonical()
        } else {
            IpAddr::V6(v6)
        }
    }

    /// No IPv6 prefix holds an IPv4 address, though its mapped form lies inside `::/0`.
    pub fn contains(&self, other: &Self) -> bool {
        self.bits <= other.bits
            && (self.bits >= MAPPED_BITS || !other.is_ipv4())
            && u128::from_be_bytes(other.addr) & mask(self.bits) == u128::from_be_bytes(self.addr)
    }
}

impl Ord for Source {
    /// By address, then by length. As numbers: byte by byte it would be a call each time.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let whole = |source: &Self| (source.halves(), source.bits);
        whole(self).cmp(&whole(other))
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<String> for Source {
    type Error = ParseSourceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(bits.min(128)))
        .unwrap_or(0)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.ip();
        let text = match (self.bits, ip) {
            (128, _) => ip.to_string(),
            (bits, IpAddr::V4(_)) => format!("{ip}/{}", bits - MAPPED_BITS),
            (bits, IpAddr::V6(_)) => format!("{ip}/{bits}"),
        };
        f.pad(&text)
    }
}

/// Why a text is not a source, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSourceError {
    #[error(
        "'{0}' is not an address or prefix; write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48"
    )]
    Syntax(String),
    #[error("'{text}' has prefix length {given}; the most for its family is {most}")]
    Length { text: String, given: u32, most: u8 },
    #[error("'{text}' has bits set after the prefix; did you mean {meant}?")]
    HostBits { text: String, meant: Source },
}

impl FromStr for Source {
    type Err = ParseSourceError;

    /// Reads `ADDRESS` or `ADDRESS/LENGTH`, the length counted in the address's own family.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || ParseSourceError::Syntax(shown(text).into_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| syntax())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let Some(length) = length else {
            return Ok(Self::host(ip));
        };
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let given: u32 = length.parse().map_err(|_| syntax())?;
        let own = u8::try_from(given)
            .ok()
            .filter(|own| *own <= most)
            .ok_or_else(|| ParseSourceError::Length {
                text: shown(text).into_owned(),
                given,
                most,
            })?;
        let source = Self::containing(mapped(ip), own + (128 - most));
        if source.addr != mapped(ip) {
            return Err(ParseSourceError::HostBits {
                text: shown(text).into_owned(),
                meant: source,
            });
        }
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_tracked_one_by_one() {
        let tracked = |text: &str| Source::tracked(text.parse().unwrap(), 64).to_string();
        assert_eq!(tracked("fe80::1"), "fe80::1");
        assert_eq!(tracked("febf::1"), "febf::1");
        assert_eq!(tracked("fec0::1"), "fec0::/64");
        assert_eq!(tracked("2001:db8::1"), "2001:db8::/64");
        assert_eq!(tracked("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn both_families_read_back_as_written() {
        for text in [
            "192.0.2.7",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "2001:db8::/48",
            "::/0",
            "2001:db8::1",
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            let json = serde_json::to_string(&source).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Source>(&json).unwrap(), source);
        }
    }

    #[test]
    fn everyone_is_a_prefix_of_each_family() {
        let by_family = |text: &str| -> Vec<String> {
            let source: Source = text.parse().unwrap();
            source
                .by_family()
                .map(|source| source.to_string())
                .collect()
        };
        assert_eq!(by_family("::/0"), ["::/0", "0.0.0.0/0"]);
        for one in ["0.0.0.0/0", "2001:db8::/48", "192.0.2.7"] {
            assert_eq!(by_family(one), [one]);
        }
    }

    #[test]
    fn a_full_length_prefix_is_a_host() {
        assert_eq!(
            "192.0.2.7/32".parse::<Source>().unwrap().to_string(),
            "192.0.2.7"
        );
        assert_eq!(
            "2001:db8::1/128".parse::<Source>().unwrap().to_string(),
            "2001:db8::1"
        );
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let source: Source = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(source, "192.0.2.7".parse().unwrap());
        assert!(source.is_ipv4());
    }

    #[test]
    fn bad_text_says_how_to_mend_it() {
        let error = |text: &str| text.parse::<Source>().unwrap_err().to_string();
        assert_eq!(
            error("10.0.0.5/8"),
            "'10.0.0.5/8' has bits set after the prefix; did you mean 10.0.0.0/8?"
        );
        assert_eq!(
            error("10.0.0.0/33"),
            "'10.0.0.0/33' has prefix length 33; the most for its family is 32"
        );
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "host.example",
            "10.0.0.1 ",
        ] {
            assert!(
                error(text).contains("is not an address or prefix"),
                "{text}"
            );
        }
    }

    #[test]
    fn ipv6_is_tracked_by_prefix_and_ipv4_by_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            Source::tracked(ip("2001:db8:1:2:3::4"), 64).to_string(),
            "2001:db8:1:2::/64"
        );
        assert_eq!(
            Source::tracked(ip("192.0.2.7"), 64).to_string(),
            "192.0.2.7"
        );
    }

    #[test]
    fn containment_follows_prefixes_within_and_across_families() {
        let source = |text: &str| text.parse::<Source>().unwrap();
        assert!(source("192.0.2.0/24").contains(&source("192.0.2.7")));
        assert!(!source("192.0.2.0/24").contains(&source("192.0.3.7")));
        assert!(!source("192.0.2.7").contains(&source("192.0.2.0/24")));
        assert!(!source("0.0.0.0/0").contains(&source("2001:db8::1")));
        assert!(source("2001:db8::/48").contains(&source("2001:db8:0:9::/64")));
    }
}
