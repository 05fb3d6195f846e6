//! Frames that no stack of the lab's hosts would send, and a way to send them.

use std::net::IpAddr;

use super::traffic::Tried;
use crate::lab::{Lab, LabError};
use crate::packet::{DOT1Q, Frame, L4};

/// Packets of a kind that no stack of these hosts would send, straight onto the server's wire.
pub(super) fn odd_frames(lab: &Lab, source: IpAddr) -> Vec<Frame> {
    let server = lab.server();
    let to: IpAddr = if source.is_ipv4() {
        server.v4.into()
    } else {
        server.v6.into()
    };
    let raw = |proto, payload| Frame::new(source, L4::Raw { proto, payload });
    let mut frames = vec![
        Frame::syn(source, 0),
        Frame::ack(source, 443),
        Frame::ack(source, 22),
        Frame::new(
            source,
            L4::Tcp {
                sport: 443,
                dport: 40_000,
                flags: 0x12,
            },
        ),
        Frame::udp(source, 53, 40_000),
        raw(
            132,
            &[0x9c, 0x40, 0x0f, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20],
        ),
        raw(47, &[0, 0, 8, 0, 0x45, 0, 0, 20]),
        raw(4, &[0x45; 20]),
        raw(253, &[0; 20]),
        raw(6, &[0x9c, 0x40, 0, 22, 0, 0, 0, 0]),
        Frame::syn(source, 22).vlan(DOT1Q, 0),
        Frame::udp(source, 40_000, 2_049).fragment(99, 185, false),
        Frame::udp(source, 40_000, 2_049).fragment(98, 0, true),
    ];
    if source.is_ipv6() {
        frames.push(Frame::syn(source, 22).extensions(&[60]));
        frames.push(Frame::syn(source, 22).extensions(&[0, 60, 43]));
        frames.push(Frame::syn(source, 22).extensions(&[60; 9]));
    }
    frames.into_iter().map(|frame| frame.to(to)).collect()
}

/// Sends frames out of the router's device to the server, with the server's address in front.
pub(super) fn inject(lab: &Lab, frames: &[Frame]) -> Tried {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, send, socket};
    use std::os::fd::AsRawFd;
    let link = lab
        .server()
        .net
        .run("ip", &["-o", "link", "show", "eth0"])?;
    let mac = link
        .split("link/ether ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    let mac: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    lab.router().enter(|| {
        let failed = |e: nix::Error| LabError::new("injecting frames", e);
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            None,
        )
        .map_err(failed)?;
        let mut address: nix::libc::sockaddr_ll = unsafe_zeroed();
        address.sll_family = u16::try_from(nix::libc::AF_PACKET).unwrap();
        address.sll_ifindex = nix::net::if_::if_nametoindex("server").map_err(failed)? as i32;
        let address = link_address(&address);
        bind(fd.as_raw_fd(), &address).map_err(failed)?;
        for frame in frames {
            let mut bytes = frame.build();
            bytes[..6].copy_from_slice(&mac);
            send(fd.as_raw_fd(), &bytes, nix::sys::socket::MsgFlags::empty()).map_err(failed)?;
        }
        Ok(())
    })
}

pub(super) fn unsafe_zeroed() -> nix::libc::sockaddr_ll {
    // SAFETY: plain integers, for which all zero is a value.
    unsafe { std::mem::zeroed() }
}

pub(super) fn link_address(address: &nix::libc::sockaddr_ll) -> nix::sys::socket::LinkAddr {
    use nix::sys::socket::SockaddrLike;
    let len = u32::try_from(size_of::<nix::libc::sockaddr_ll>()).unwrap();
    // SAFETY: a whole sockaddr_ll, whose length is given.
    unsafe { nix::sys::socket::LinkAddr::from_raw(std::ptr::from_ref(address).cast(), Some(len)) }
        .unwrap()
}
