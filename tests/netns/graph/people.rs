//! The company: who is legitimate, and what an attacker inside tries.

use std::net::Ipv6Addr;

use super::traffic::{PATIENCE, SHORT, Tried, ping, tcp, udp};
use crate::lab::{Host, Lab, LabError, Namespace};

/// Addresses on the server's own link: hers, an administrator's and an attacker's beside him.
pub(super) const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);
const ADMIN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x66);
const CONTAINER: Ipv6Addr = Ipv6Addr::new(0xfd77, 0x30, 0, 0, 0, 0, 0, 2);
/// Unique local addresses of the two, beside the server's fd77::2.
const ADMIN_ULA: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3);
const NEIGHBOUR_ULA: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x66);

pub(super) struct Company<'l> {
    lab: &'l Lab,
    pub(super) container: Namespace,
    pub(super) admin: Namespace,
    pub(super) neighbour: Namespace,
}

/// A host of its own on the server's link, which the router's end of it is a switch for.
fn on_link(lab: &Lab, name: &str, addresses: [Ipv6Addr; 2]) -> Result<Namespace, LabError> {
    let net = Namespace::create(format!("{}-{name}", lab.server().net.name()))?;
    lab.router().ip(&format!(
        "link add link server name {name} type macvlan mode bridge\n\
         link set {name} netns {}",
        net.name()
    ))?;
    let [global, local] = addresses;
    net.ip(&format!(
        "link set {name} name eth0\naddr add {global}/64 dev eth0 nodad\n\
         addr add {local}/64 dev eth0 nodad\nlink set eth0 up\n\
         route add fd77:30::/64 via {}",
        lab.server().v6
    ))?;
    Ok(net)
}

impl<'l> Company<'l> {
    /// A container on the server: out through masquerading, in through a published port.
    pub(super) fn of(lab: &'l Lab) -> Result<Self, LabError> {
        let server = &lab.server().net;
        let name = format!("{}-c", server.name());
        let container = Namespace::create(name.clone())?;
        server.ip(&format!(
            "link add c0 type veth peer name eth0 netns {name}\naddr add 172.30.0.1/24 dev c0\nlink set c0 up"
        ))?;
        container.ip(&format!(
            "addr add 172.30.0.2/24 dev eth0\naddr add {CONTAINER}/64 dev eth0 nodad\n\
             link set eth0 up\nroute add default via 172.30.0.1\nroute add default via fd77:30::1"
        ))?;
        server.ip(&format!(
            "addr add fd77:30::1/64 dev c0 nodad\naddr add {SERVER}/64 dev eth0 nodad"
        ))?;
        server.set("net/ipv6/conf/all/forwarding", "1")?;
        let admin = on_link(lab, "admin", [ADMIN, ADMIN_ULA])?;
        let neighbour = on_link(lab, "next", [NEIGHBOUR, NEIGHBOUR_ULA])?;
        server.set("net/ipv4/ip_forward", "1")?;
        server.nft(
            "add table ip company\n\
             add chain ip company out { type nat hook postrouting priority srcnat; }\n\
             add rule ip company out ip saddr 172.30.0.0/24 oifname eth0 masquerade\n\
             add chain ip company in { type nat hook prerouting priority dstnat; }\n\
             add rule ip company in iifname eth0 tcp dport 8080 dnat to 172.30.0.2:80",
        )?;
        Ok(Self {
            lab,
            container,
            admin,
            neighbour,
        })
    }

    pub(super) fn host(&self, name: &str) -> &Host {
        self.lab.client(name).unwrap()
    }

    /// Every legitimate exchange, by name. `weekly`: the backup runs too.
    pub(super) fn exchanges(&self, weekly: bool) -> Vec<(&'static str, Tried)> {
        let (server, backup) = (self.lab.server(), self.host("backup"));
        let mut done = self.inbound();
        done.extend(self.outbound());
        done.extend(self.on_the_link());
        if weekly {
            done.push(("the backup runs", tcp(&backup.net, server.v4, 22, PATIENCE)));
        }
        done
    }

    fn inbound(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        let [app1, app2, monitor] = ["app1", "app2", "monitor"].map(|name| self.host(name));
        vec![
            ("app1 logs in", tcp(&app1.net, server.v4, 443, PATIENCE)),
            (
                "app1 logs in over IPv6",
                tcp(&app1.net, server.v6, 443, PATIENCE),
            ),
            ("app2 logs in", tcp(&app2.net, server.v4, 443, PATIENCE)),
            (
                "app1 on a high port",
                udp(&app1.net, server.v4, 51_820, 0, 100, PATIENCE),
            ),
            (
                "app1 in fragments",
                udp(&app1.net, server.v4, 2_049, 0, 6_000, PATIENCE),
            ),
            (
                "app1 in fragments over IPv6",
                udp(&app1.net, server.v6, 2_049, 0, 6_000, PATIENCE),
            ),
            (
                "monitoring scrapes",
                tcp(&monitor.net, server.v4, 9_100, PATIENCE),
            ),
            ("monitoring pings", ping(&monitor.net, server.v4)),
            ("monitoring pings over IPv6", ping(&monitor.net, server.v6)),
            (
                "app2 uses the container",
                tcp(&app2.net, server.v4, 8_080, PATIENCE),
            ),
        ]
    }

    fn outbound(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        let [db, dns] = ["db", "dns"].map(|name| self.host(name));
        vec![
            (
                "the directory is read",
                tcp(&server.net, db.v4, 5_432, PATIENCE),
            ),
            (
                "names are asked for",
                udp(&server.net, dns.v4, 53, 0, 60, PATIENCE),
            ),
            (
                "names are asked for over IPv6",
                udp(&server.net, dns.v6, 53, 0, 60, PATIENCE),
            ),
            (
                "a long answer arrives",
                udp(&server.net, dns.v4, 53, 0, 4_000, PATIENCE),
            ),
            (
                "time is asked for from its own port",
                udp(&server.net, dns.v4, 123, 123, 48, PATIENCE),
            ),
            (
                "updates come over HTTPS",
                tcp(&server.net, dns.v4, 443, PATIENCE),
            ),
            (
                "the container reads the directory",
                tcp(&self.container, db.v4, 5_432, PATIENCE),
            ),
        ]
    }

    /// What the administrator beside the server does, and what is done towards him.
    fn on_the_link(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        vec![
            (
                "the administrator logs in",
                tcp(&self.admin, SERVER, 22, PATIENCE),
            ),
            (
                "the administrator logs in by the local prefix",
                tcp(&self.admin, server.v6, 22, PATIENCE),
            ),
            (
                "the server reports to the administrator",
                tcp(&server.net, ADMIN, 5_514, PATIENCE),
            ),
            (
                "the administrator uses the container",
                tcp(&self.admin, CONTAINER, 80, PATIENCE),
            ),
            (
                "the container reports to the administrator",
                tcp(&self.container, ADMIN_ULA, 5_514, PATIENCE),
            ),
        ]
    }

    /// The same by and towards the one beside him: to share his /64 makes nobody as good.
    fn moves_on_the_link(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        vec![
            (
                "a neighbour of the administrator",
                tcp(&self.neighbour, SERVER, 22, SHORT),
            ),
            (
                "a neighbour by the local prefix",
                tcp(&self.neighbour, server.v6, 22, SHORT),
            ),
            (
                "a neighbour at the container",
                tcp(&self.neighbour, CONTAINER, 80, SHORT),
            ),
            (
                "the server turns on the neighbour",
                tcp(&server.net, NEIGHBOUR, 5_514, SHORT),
            ),
            (
                "the container turns on the neighbour",
                tcp(&self.container, NEIGHBOUR_ULA, 5_514, SHORT),
            ),
        ]
    }

    /// Lateral moves through the stack of whoever makes them; none may succeed.
    pub(super) fn moves(&self) -> Vec<(&'static str, Tried)> {
        let server = self.lab.server();
        let [app1, app2, db, evil] = ["app1", "app2", "db", "evil"].map(|name| self.host(name));
        let mut made = self.moves_on_the_link();
        made.extend([
            ("a new source", tcp(&evil.net, server.v4, 443, SHORT)),
            (
                "a new source over IPv6",
                tcp(&evil.net, server.v6, 443, SHORT),
            ),
            (
                "a new source by UDP",
                udp(&evil.net, server.v4, 51_820, 0, 100, SHORT),
            ),
            (
                "a new source in fragments",
                udp(&evil.net, server.v4, 2_049, 0, 6_000, SHORT),
            ),
            (
                "a new source in fragments over IPv6",
                udp(&evil.net, server.v6, 2_049, 0, 6_000, SHORT),
            ),
            ("a new source pings", ping(&evil.net, server.v4)),
            (
                "a new source at the container",
                tcp(&evil.net, server.v4, 8_080, SHORT),
            ),
            ("a new port", tcp(&app1.net, server.v4, 22, SHORT)),
            (
                "a new port over IPv6",
                tcp(&app1.net, server.v6, 9_100, SHORT),
            ),
            (
                "a new protocol",
                udp(&app1.net, server.v4, 443, 0, 10, SHORT),
            ),
            (
                "IPv6 instead of IPv4",
                tcp(&app2.net, server.v6, 443, SHORT),
            ),
            (
                "the server turns on the attacker",
                tcp(&server.net, evil.v4, 4_444, SHORT),
            ),
            (
                "the server turns on the database",
                tcp(&server.net, db.v4, 22, SHORT),
            ),
            (
                "the server leaks by UDP",
                udp(&server.net, evil.v4, 4_444, 0, 100, SHORT),
            ),
            (
                "the container turns on the attacker",
                tcp(&self.container, evil.v4, 4_444, SHORT),
            ),
        ]);
        made
    }
}
