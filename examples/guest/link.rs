//! Network interfaces: a veth pair over netlink, flags and MTU by ioctl, cards by their address.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Doing, Result};

/// One message of rtnetlink (7), attributes appended in order.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "constants of 16 bits"
        )]
        bytes.extend((flags as u16).to_ne_bytes());
        bytes.extend([0; 8]);
        Self(bytes)
    }

    /// struct ifinfomsg, all zero.
    fn interface(&mut self) {
        self.0.extend([0; 16]);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend(value);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// VETH_INFO_PEER of linux/veth.h, which libc lacks.
const VETH_INFO_PEER: u16 = 1;

pub(crate) fn make_veth(name: &str, peer: &str) -> Result<()> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWLINK, flags);
    message.interface();
    message.attribute(libc::IFLA_IFNAME, &terminated(name));
    let info = message.open(libc::IFLA_LINKINFO);
    message.attribute(libc::IFLA_INFO_KIND, b"veth");
    let data = message.open(libc::IFLA_INFO_DATA);
    let other = message.open(VETH_INFO_PEER);
    message.interface();
    message.attribute(libc::IFLA_IFNAME, &terminated(peer));
    message.close(other);
    message.close(data);
    message.close(info);
    request(&message.finish()).doing("making a veth pair")
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn request(message: &[u8]) -> io::Result<()> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let mut reply = [0u8; 4096];
    // SAFETY: both buffers are live for their calls and as long as said.
    let got = unsafe {
        if libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
        ) < 0
        {
            return Err(io::Error::last_os_error());
        }
        libc::recv(
            socket.as_raw_fd(),
            reply.as_mut_ptr().cast(),
            reply.len(),
            0,
        )
    };
    // nlmsghdr of 16 bytes, then nlmsgerr: its first word is the negated errno.
    let code = reply[16..20].try_into().map_or(0, i32::from_ne_bytes);
    match (got, code) {
        (..20, _) => Err(io::Error::other("no answer")),
        (_, 0) => Ok(()),
        (_, code) => Err(io::Error::from_raw_os_error(-code)),
    }
}

pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Brings an interface up, promiscuous, so that a card's address filter judges no test frame.
pub(crate) fn up(name: &str, mtu: Option<u32>) -> Result<()> {
    if let Some(mtu) = mtu {
        let path = format!("/sys/class/net/{name}/mtu");
        fs::write(&path, mtu.to_string()).doing(&format!("writing {mtu} to {path}"))?;
    }
    // IPv6 would send frames of its own.
    let _absent = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    let path = format!("/sys/class/net/{name}/flags");
    let flags = libc::IFF_UP | libc::IFF_PROMISC;
    fs::write(&path, format!("{flags:#x}")).doing(&format!("writing {path}"))
}

/// The card with this address, as qemu was told it.
pub(crate) fn by_address(address: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net").doing("listing interfaces")? {
        let entry = entry.doing("listing interfaces")?;
        let found = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if found.trim() == address {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Err(format!("no interface has the address {address}"))
}

pub(crate) fn driver(name: &str) -> String {
    fs::read_link(format!("/sys/class/net/{name}/device/driver"))
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "veth".to_owned())
}
