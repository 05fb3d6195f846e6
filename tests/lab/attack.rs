//! Attacks with the tools attackers use, each bounded in packets: hping3, nping and nmap.
//!
//! Measured on two cores of a small cloud VM, without protection:
//!
//! | assault | tool | packets sent per second |
//! |---|---|---|
//! | `Syn4`, `Udp4`, gap 100 us | hping3 | 5,500 |
//! | the same, gap 200 us / 1 ms | hping3 | 3,500 / 900 |
//! | `Syn6`, `Udp6`, gap 400 us / 1 ms | 3 nping / 1 | 2,000 / 970 |
//! | scan of 1,000 ports | nmap | done in 0.1 s |
//!
//! A SYN that is answered costs the server two packets: the client's kernel resets what its tool
//! opened.
//!
//! hping3 speaks no IPv6, and nping keeps no gap between 0 and 1 ms: it floods IPv6 with as many
//! processes of 1 ms each as the gap asks for, and each takes a quarter of a core. The UDP checksum of nping over IPv6 is wrong: the
//! host counts such packets at XDP and then throws them away, so nothing answers them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::process::Process;
use super::wait::{now, wait_until};
use super::{Family, Lab, Result};

/// Port the UDP floods aim at. Nothing listens there.
pub(crate) const CLOSED_PORT: &str = "9999";

/// What kind of packets a flood is made of. SYNs go to port 80, UDP carries 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Syn4,
    Udp4,
    Syn6,
    Udp6,
}

/// What one client does to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assault {
    /// So many packets, one per `gap`. Source ports change with IPv4 and stay with IPv6.
    Flood {
        flood: Flood,
        packets: u32,
        gap: Duration,
    },
    /// An nmap scan of the ports 1 to `ports`, by a technique as nmap names it: `-sS`.
    Scan {
        family: Family,
        technique: &'static str,
        ports: u16,
    },
}

impl Assault {
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Flood {
                flood: Flood::Syn4 | Flood::Udp4,
                ..
            } => Family::V4,
            Self::Flood {
                flood: Flood::Syn6 | Flood::Udp6,
                ..
            } => Family::V6,
            Self::Scan { family, .. } => family,
        }
    }

    /// The processes to start: a program and its arguments each.
    fn commands(self, lab: &Lab) -> Vec<(&'static str, String)> {
        let (v4, v6) = (lab.server().v4, lab.server().v6);
        match self {
            Self::Flood {
                flood: Flood::Syn4,
                packets,
                gap,
            } => {
                vec![(
                    "hping3",
                    format!("-q -S -p 80 -i u{} -c {packets} {v4}", gap.as_micros()),
                )]
            }
            Self::Flood {
                flood: Flood::Udp4,
                packets,
                gap,
            } => {
                let what = format!("-q --udp -p {CLOSED_PORT} -d 64");
                vec![(
                    "hping3",
                    format!("{what} -i u{} -c {packets} {v4}", gap.as_micros()),
                )]
            }
            Self::Flood {
                flood: Flood::Syn6,
                packets,
                gap,
            } => {
                let what = format!("-6 --tcp --flags syn -p 80 {v6}");
                nping(&what, packets, gap)
            }
            Self::Flood {
                flood: Flood::Udp6,
                packets,
                gap,
            } => {
                let what = format!("-6 --udp -p {CLOSED_PORT} --data-length 64 {v6}");
                nping(&what, packets, gap)
            }
            Self::Scan {
                family,
                technique,
                ports,
            } => {
                let target = match family {
                    Family::V4 => v4.to_string(),
                    Family::V6 => format!("-6 {v6}"),
                };
                let bounds = "-T4 --max-retries 1 --host-timeout 20s";
                vec![(
                    "nmap",
                    format!("-n -v -Pn {technique} {bounds} -p 1-{ports} {target}"),
                )]
            }
        }
    }
}

/// Splits a flood over enough processes, as each sends one packet per millisecond at best.
fn nping(what: &str, packets: u32, gap: Duration) -> Vec<(&'static str, String)> {
    let gap_us = u32::try_from(gap.as_micros()).unwrap_or(u32::MAX).max(1);
    let streams = 1_000u32.div_ceil(gap_us).min(10);
    let delay_ms = (gap_us / 1_000).max(1);
    let share = packets.div_ceil(streams);
    let one = format!("-H -q --delay {delay_ms}ms -c {share} {what}");
    (0..streams).map(|_| ("nping", one.clone())).collect()
}

/// A running attack; ends on drop.
pub(crate) struct Attack {
    pub(crate) assault: Assault,
    /// When its tools were started: a little before its first packet.
    pub(crate) began: Instant,
    processes: Vec<Process>,
}

impl Attack {
    /// Starts it from the client's own address.
    pub(crate) fn launch(lab: &Lab, client: &str, assault: Assault) -> Result<Self> {
        let net = &lab.client(client)?.net;
        let began = now();
        let mut processes = Vec::new();
        for (program, args) in assault.commands(lab) {
            processes.push(net.spawn(program, &args.split(' ').collect::<Vec<_>>())?);
        }
        Ok(Self {
            assault,
            began,
            processes,
        })
    }

    /// Whether all of it is over. nping and hping3 listen for a second after their last packet.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        let mut all = true;
        for process in &mut self.processes {
            all &= process.ended()?.is_some();
        }
        Ok(all)
    }

    /// Waits for its end and for the last word of its tools.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<()> {
        wait_until(limit, "the end of the attack", || self.ended())?;
        for process in &mut self.processes {
            process.wait(limit)?;
        }
        Ok(())
    }

    /// Packets sent, as the tools say at their end; `None` unless all of them did.
    pub(crate) fn sent(&self) -> Option<u64> {
        self.processes
            .iter()
            .map(|process| packets_sent(&process.text()))
            .sum()
    }

    /// Asks it to end early, as Ctrl-C does: hping3 and nping then still say what they sent.
    pub(crate) fn interrupt(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if process.ended()?.is_none() {
                process.signal(Signal::SIGINT)?;
            }
        }
        Ok(())
    }
}

/// Finds hping3's `9000 packets transmitted` or the `Raw packets sent: 9000` of nmap and nping.
fn packets_sent(said: &str) -> Option<u64> {
    said.lines().find_map(|line| {
        let number = match line.split_once(" packets transmitted") {
            Some((before, _)) => before,
            None => line.split_once("Raw packets sent: ")?.1.split(' ').next()?,
        };
        number.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::packets_sent;

    #[test]
    fn every_tool_says_what_it_sent() {
        let hping3 = "\n--- 10.77.0.2 hping statistic ---\n9000 packets transmitted, 12 packets \
                      received, 100% packet loss";
        let nping = "Raw packets sent: 3000 (60.000KB) | Rcvd: 0 (0B) | Lost: 3000 (100.00%)";
        let nmap = "           Raw packets sent: 1002 (44.088KB) | Rcvd: 1002 (40.080KB)";
        assert_eq!(
            [hping3, nping, nmap].map(packets_sent),
            [Some(9000), Some(3000), Some(1002)]
        );
        assert_eq!(packets_sent("Starting Nmap"), None);
    }
}
