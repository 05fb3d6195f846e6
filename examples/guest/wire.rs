//! Raw frames in at one end of a cable, counted at the other, behind the XDP program.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::deadline::Deadline;
use crate::link::socket;
use crate::packet::Frame;
use crate::{Doing, Result};

/// Bit patterns of what [`Frame`] builds: its sender's hardware address.
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Wire {
    send: OwnedFd,
    /// IPv6, then IPv4, as the stack takes them: a tap of everything sits before TC.
    receive: [OwnedFd; 2],
    marker: u16,
}

impl Wire {
    /// `from` and `to` are the two ends; XDP will be on `to`.
    pub(crate) fn between(from: &str, to: &str) -> Result<Self> {
        Ok(Self {
            send: packet_socket(from, 0).doing(from)?,
            receive: [
                packet_socket(to, libc::ETH_P_IPV6).doing(to)?,
                packet_socket(to, libc::ETH_P_IP).doing(to)?,
            ],
            marker: 0,
        })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            // SAFETY: the frame is live for the call and as long as said.
            let sent =
                unsafe { libc::send(self.send.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The card's queue is full, or its link is being reset by an attachment.
                Some(libc::ENOBUFS) => std::thread::yield_now(),
                Some(libc::ENETDOWN) => return Ok(()),
                _ => return Err(format!("sending: {error}")),
            }
        }
    }

    /// Waits until frames get across, as after an attachment that resets the link.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.after_a_marker(true).map(|_| ())
    }

    /// How many of `frame` arrive when sent `count` times. Frames keep their order, so the last
    /// word is a marker's: a frame of another source, which no policy names.
    pub(crate) fn passed(&mut self, frame: &[u8], count: u32) -> Result<u32> {
        self.settle()?;
        for _ in 0..count {
            self.send(frame)?;
        }
        let seen = self.after_a_marker(false)?;
        let key = frame.get(12..38).unwrap_or_default();
        let passed = seen
            .iter()
            .filter(|got| got.get(12..38) == Some(key))
            .count();
        u32::try_from(passed).doing("counting")
    }

    /// Sends a marker and returns what arrived before it. `again` repeats a marker that got lost.
    fn after_a_marker(&mut self, again: bool) -> Result<Vec<Vec<u8>>> {
        let end = Deadline::after(PATIENCE);
        let mut seen = Vec::new();
        let mut marker = Vec::new();
        let mut resend = end;
        while !end.is_over() {
            if marker.is_empty() || (again && resend.is_over()) {
                self.marker += 1;
                marker = Frame::ack(IpAddr::from([203, 0, 113, 99]), self.marker).build();
                resend = Deadline::after(Duration::from_millis(200));
                self.send(&marker)?;
            }
            while let Some(frame) = self.receive(Duration::from_millis(50))? {
                if frame == marker {
                    // Both sockets may have filled while the first one was looked at.
                    while let Some(before) = self.receive(Duration::ZERO)? {
                        seen.push(before);
                    }
                    return Ok(seen);
                }
                seen.push(frame);
            }
        }
        Err(format!("no frame got across within {PATIENCE:?}"))
    }

    /// The next frame of ours, if one comes within `limit`. IPv6 first: what was sent before a
    /// marker, which is IPv4, is told before it.
    fn receive(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0u8; 65_536];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        loop {
            let mut ready = self
                .receive
                .each_ref()
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
            poll(&mut ready, timeout).doing("waiting for a frame")?;
            let Some(first) = ready.iter().position(|one| one.any() == Some(true)) else {
                return Ok(None);
            };
            // SAFETY: the buffer is live for the call and as long as said.
            let got = unsafe {
                libc::recv(
                    self.receive[first].as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            // An interface that went down for a moment is reported once.
            let len = usize::try_from(got).unwrap_or(0);
            if buffer.get(6..12) == Some(&SENDER[..]) && len > 12 {
                buffer.truncate(len);
                return Ok(Some(buffer));
            }
        }
    }
}

/// Receives frames of `protocol`; none if that is 0.
fn packet_socket(interface: &str, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let protocol = u16::try_from(protocol).unwrap_or_default().to_be();
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into())?;
    // SAFETY: an all-zero sockaddr_ll is valid; the fields that matter are set below.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(17);
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(if_nametoindex(interface)?).map_err(io::Error::other)?;
    // SAFETY: the address is live for the call and as long as said.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
