//! Who is wired to whom: builds the namespaces, links, addresses, routes and the masquerade.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use super::namespace::{Namespace, run};
use super::wait::wait_until;
use super::{Host, Lab, LabError, NAT, Plan, Result};

/// More subnets than the picture in the module docs would not be readable any more.
const MAX_CLIENTS: usize = 8;

const MASQUERADE: &str = "\
add table inet lab
add chain inet lab out { type nat hook postrouting priority srcnat; }
add rule inet lab out oifname eth0 masquerade";

pub(super) struct Parts {
    pub(super) server: Host,
    pub(super) clients: Vec<(String, Host)>,
    pub(super) office: Option<Namespace>,
    pub(super) router: Namespace,
}

/// Builds everything. What was made before an error is deleted by its guards.
pub(super) fn build(stem: &str, plan: &Plan) -> Result<Parts> {
    if plan.clients.len() > MAX_CLIENTS {
        return Err(LabError::new(
            "building the lab",
            format!("more than {MAX_CLIENTS} clients"),
        ));
    }
    let router = Namespace::create(format!("{stem}-router"))?;
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        router.set(key, "1")?;
    }
    let server = wire(stem, "server", 0, &router)?;
    let mut clients = Vec::new();
    let mut office = None;
    if plan.office_hosts > 0 {
        let nat = wire(stem, NAT, 1, &router)?;
        office = Some(open_office(stem, &nat.net, plan.office_hosts)?);
        clients.push((NAT.to_owned(), nat));
    }
    for (subnet, name) in (2..).zip(plan.clients) {
        clients.push(((*name).to_owned(), wire(stem, name, subnet, &router)?));
    }
    Ok(Parts {
        server,
        clients,
        office,
        router,
    })
}

/// Waits until each client, and the last host of the office, reaches the server over both families.
pub(super) fn wait_reachable(lab: &Lab) -> Result<()> {
    let targets = [lab.server.v4.to_string(), lab.server.v6.to_string()];
    let spaces = lab
        .clients
        .iter()
        .map(|(_, host)| &host.net)
        .chain(&lab.office);
    for (net, target) in spaces.flat_map(|net| targets.iter().map(move |target| (net, target))) {
        let what = format!("{} to reach {target}", net.name());
        wait_until(Duration::from_secs(10), &what, || {
            Ok(net.run("ping", &["-n", "-q", "-c1", "-W1", target]).is_ok())
        })?;
    }
    Ok(())
}

/// The /64 of an address, as kernloom prints a source.
pub(super) fn prefix64(address: Ipv6Addr) -> String {
    let [a, b, c, d, ..] = address.segments();
    format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
}

/// Address of the office's host `index`, per family.
pub(super) fn office_host(index: u8) -> (Ipv4Addr, Ipv6Addr) {
    let low = index.saturating_add(10);
    let v6 = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, u16::from(low));
    (Ipv4Addr::new(192, 168, 77, low), v6)
}

/// Makes a host on subnet `subnet` and its link to the router, whose end is named like the host.
fn wire(stem: &str, name: &str, subnet: u8, router: &Namespace) -> Result<Host> {
    let net = Namespace::create(format!("{stem}-{name}"))?;
    let [router_v4, v4] = [1, 2].map(|host| Ipv4Addr::new(10, 77, subnet, host));
    let [router_v6, v6] =
        [1, 2].map(|host| Ipv6Addr::new(0xfd77, subnet.into(), 0, 0, 0, 0, 0, host));
    link(&net, router, name)?;
    router.ip(&up(name, router_v4, router_v6))?;
    net.ip(&up("eth0", v4, v6))?;
    net.ip(&format!(
        "route add default via {router_v4}\nroute add default via {router_v6}"
    ))?;
    Ok(Host { net, v4, v6 })
}

/// Makes the office's hosts behind `nat`, which masquerades for them.
fn open_office(stem: &str, nat: &Namespace, hosts: u8) -> Result<Namespace> {
    let office = Namespace::create(format!("{stem}-office"))?;
    let gateway_v4 = Ipv4Addr::new(192, 168, 77, 1);
    let gateway_v6 = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1);
    link(&office, nat, "office")?;
    nat.ip(&up("office", gateway_v4, gateway_v6))?;
    let mut lines = String::from("link set dev eth0 up\n");
    for (v4, v6) in (0..hosts).map(office_host) {
        lines += &format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n");
    }
    lines += &format!("route add default via {gateway_v4}\nroute add default via {gateway_v6}");
    office.ip(&lines)?;
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        nat.set(key, "1")?;
    }
    nat.nft(MASQUERADE)?;
    Ok(office)
}

/// A veth pair: `eth0` in `net`, `peer` in `other`.
fn link(net: &Namespace, other: &Namespace, peer: &str) -> Result<()> {
    let pair = ["link", "add", "eth0", "netns", net.name(), "type", "veth"];
    let end = ["peer", "name", peer, "netns", other.name()];
    run(Command::new("ip").args(pair).args(end)).map(drop)
}

fn up(device: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> String {
    format!(
        "addr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad\n\
         link set dev {device} up"
    )
}
