//! Captures as a host's interface would have received them: pcap and pcapng, Ethernet frames out.

mod handshake;
mod packet;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::error::{Doing, Error, Result};

pub use handshake::{Answer, Handshakes};
pub use packet::Ends;

/// Holds the longest packet that capturing programs write (256 KiB), with room to spare.
const BUFFER: usize = 1 << 20;

/// What 'tcpdump -i any' writes (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>).
const LINUX_SLL2: Linktype = Linktype(276);

/// Addresses of no host, for packets that were captured without a link layer.
const NO_MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// One frame with its Ethernet header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Since 1970.
    pub time: Duration,
    /// What was cut off by the capture's snap length is zero.
    pub frame: Vec<u8>,
}

/// How an interface of the capture tells time and frames packets.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Linktype,
    /// Units per second.
    resolution: u64,
    /// Seconds to add.
    offset: i64,
}

/// Reads a capture from its start to its end.
pub struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    /// Bytes of the file that were read.
    pub read: u64,
    /// Bytes the file has.
    pub size: u64,
    /// Whether it ended in the middle of a packet.
    pub cut: bool,
}

impl Capture {
    /// # Errors
    /// Operator's, if the file is missing or is no capture.
    pub fn open(path: &Path) -> Result<Self> {
        let cannot = |why: &dyn std::fmt::Display| {
            Error::operator(format!("cannot read {}: {why}", path.display()))
        };
        let mut file = File::open(path).map_err(|error| cannot(&error))?;
        let about = file.metadata().doing(|| "asking for the file's size")?;
        if about.is_dir() {
            return Err(cannot(&"it is a directory; give a file"));
        }
        let size = about.len();
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
            return Err(cannot(&"it is compressed; unpack it with gunzip first"));
        }
        let file = File::open(path).map_err(|error| cannot(&error))?;
        if size == 0 {
            return Err(cannot(&"it is empty"));
        }
        let reader = create_reader(BUFFER, BufReader::new(file)).map_err(|_| {
            cannot(&"it is neither pcap nor pcapng; write it with 'tcpdump -w FILE'")
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            interfaces: Vec::new(),
            read: 0,
            size,
            cut: false,
        })
    }

    /// The next packet; `None` at the end. A last packet that was cut off ends the capture too.
    ///
    /// # Errors
    /// Operator's, if the file is damaged or of a link type that cannot be received.
    pub fn packet(&mut self) -> Result<Option<Captured>> {
        loop {
            let exhausted = self.reader.reader_exhausted();
            match self.reader.next() {
                Ok((length, block)) => {
                    let found = taken(&mut self.interfaces, block);
                    self.reader.consume(length);
                    self.read += length as u64;
                    let at = self.read;
                    let found = found.map_err(|why| {
                        let path = self.path.display();
                        Error::operator(format!("{path}: before byte {at}: {why}"))
                    })?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::UnexpectedEof) => return Ok(self.cut_off()),
                Err(PcapError::Incomplete(_)) if exhausted => return Ok(self.cut_off()),
                Err(PcapError::Incomplete(_)) => {
                    let broke_off =
                        |_| Error::world(format!("reading {}: it broke off", self.path.display()));
                    let had = self.reader.data().len();
                    self.reader.refill().map_err(broke_off)?;
                    // A packet longer than the buffer is none.
                    if self.reader.data().len() == had && !self.reader.reader_exhausted() {
                        return Err(self.damaged());
                    }
                }
                Err(_) => return Err(self.damaged()),
            }
        }
    }

    fn cut_off(&mut self) -> Option<Captured> {
        self.cut = true;
        None
    }

    fn damaged(&self) -> Error {
        Error::operator(format!(
            "{}: damaged at byte {}; mend it with 'editcap' or capture anew",
            self.path.display(),
            self.read
        ))
    }
}

/// What a block brings: an interface, a packet, or nothing.
fn taken(
    interfaces: &mut Vec<Interface>,
    block: PcapBlockOwned<'_>,
) -> Result<Option<Captured>, String> {
    let packet = |interface: Option<&Interface>, ticks: u64, data: &[u8], length: u32| {
        let interface = interface.ok_or("a packet of an interface that was not described")?;
        Ok(Some(Captured {
            time: interface.time(ticks),
            frame: interface.frame(data, length)?,
        }))
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() {
                1_000_000_000
            } else {
                1_000_000
            };
            interfaces.push(Interface::new(header.network, resolution, 0)?);
            Ok(None)
        }
        PcapBlockOwned::Legacy(block) => {
            let interface = interfaces.first();
            let resolution = interface.map_or(1, |interface| interface.resolution);
            let ticks = u64::from(block.ts_sec) * resolution + u64::from(block.ts_usec);
            packet(interface, ticks, block.data, block.origlen)
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            Ok(None)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            let resolution = block.ts_resolution().filter(|units| *units > 0);
            let resolution = resolution.ok_or("an interface whose clock makes no sense")?;
            interfaces.push(Interface::new(
                block.linktype,
                resolution,
                block.ts_offset(),
            )?);
            Ok(None)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let ticks = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
            let interface = interfaces.get(block.if_id as usize);
            packet(interface, ticks, block.packet_data(), block.origlen)
        }
        // The rest has no packets, or packets without a time.
        PcapBlockOwned::NG(_) => Ok(None),
    }
}

impl Interface {
    fn new(link: Linktype, resolution: u64, offset: i64) -> Result<Self, String> {
        match link {
            Linktype::ETHERNET
            | Linktype::RAW
            | Linktype::IPV4
            | Linktype::IPV6
            | Linktype::LINUX_SLL
            | LINUX_SLL2 => Ok(Self {
                link,
                resolution,
                offset,
            }),
            Linktype(number) => Err(format!(
                "link type {number} is not received by an Ethernet interface; capture on one, as in 'tcpdump -i eth0 -w FILE'"
            )),
        }
    }

    fn time(&self, ticks: u64) -> Duration {
        let seconds = (ticks / self.resolution).saturating_add_signed(self.offset);
        let rest =
            u128::from(ticks % self.resolution) * 1_000_000_000 / u128::from(self.resolution);
        // Below a second by the division.
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(rest).unwrap_or(0))
    }

    /// The frame as it was on the wire; `length` is what the packet had there.
    fn frame(&self, data: &[u8], length: u32) -> Result<Vec<u8>, String> {
        let missing = (length as usize).saturating_sub(data.len());
        let mut frame = match self.link {
            Linktype::ETHERNET => data.to_vec(),
            Linktype::LINUX_SLL => {
                let kind = data.get(14..16).ok_or("a packet without its link header")?;
                [&NO_MACS, kind, &data[16..]].concat()
            }
            LINUX_SLL2 => {
                let payload = data.get(20..).ok_or("a packet without its link header")?;
                [&NO_MACS, &data[..2], payload].concat()
            }
            _ => {
                let kind = match data.first().map(|byte| byte >> 4) {
                    Some(6) => [0x86, 0xdd],
                    _ => [0x08, 0x00],
                };
                [&NO_MACS, kind.as_slice(), data].concat()
            }
        };
        // No interface receives more in one piece.
        frame.resize(frame.len() + missing.min(1 << 16), 0);
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
