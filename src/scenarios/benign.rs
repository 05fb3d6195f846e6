use super::network::{Network, Offer, Offers};
use super::profiles;
use super::table::{self, Row};
use crate::engine::Config;
use crate::model::{Source, Stage};
use crate::telemetry::Sample;

fn peer() -> Source {
    "203.0.113.9".parse().unwrap()
}

fn benign(traffic: Sample) -> Offer {
    Offer {
        traffic,
        hostile: false,
    }
}

/// A peer in established TCP connections.
fn established(packets: u64, bytes: u64) -> Sample {
    Sample {
        packets,
        bytes,
        stack_bits: 1,
        proven: true,
        ..Sample::silent(peer())
    }
}

fn opening(syns: u32, port_bits: u64, of: Sample) -> Sample {
    Sample {
        syns,
        opens: syns,
        port_bits,
        ..of
    }
}

/// Benign traffic in the n-th second, and for how long.
struct Load {
    name: &'static str,
    seconds: u32,
    offers: Offers,
}

fn load(
    name: &'static str,
    seconds: u32,
    offers: impl Fn(&Config, u32) -> Vec<Offer> + 'static,
) -> Load {
    Load {
        name,
        seconds,
        offers: Box::new(offers),
    }
}

/// 200 clients behind one address; together they do twice what one host may.
fn nat(config: &Config) -> Sample {
    let pps = (config.triggers.pps * 4.0) as u64;
    let syns = (config.triggers.syn * 2.0) as u32;
    let all = established(pps.max(u64::from(syns) * 10), pps * 700);
    Sample {
        stack_bits: 0x0fff_ff00,
        ..opening(syns, 0b11, all)
    }
}

fn loads() -> Vec<Load> {
    vec![
        load("nat of 200 with 3 abusers", 1_200, |config, _| {
            let all = nat(config);
            let abusers = 3 * (config.triggers.syn * 1.3) as u32;
            vec![benign(Sample {
                packets: all.packets + u64::from(abusers) * 6,
                ..opening(all.opens + abusers, 0b11, all)
            })]
        }),
        load("backup, 5754 pps", 300, |_, second| {
            let begins = u32::from(second == 0);
            vec![benign(opening(
                begins,
                begins.into(),
                established(5_754, 8_000_000),
            ))]
        }),
        load("monitoring, 12 ports in 15 s", 1_200, |_, second| {
            let checks = opening(12, 0x0000_1111_1111_1111, established(96, 9_600));
            let due = second % 15 == 0;
            due.then(|| benign(checks)).into_iter().collect()
        }),
        load("client of two ports", 600, |_, _| {
            vec![benign(opening(2, 0b11, established(200, 120_000)))]
        }),
        load("dns replies, 2000 pps", 600, |_, _| {
            vec![benign(Sample {
                packets: 2_000,
                bytes: 300_000,
                opens: 2_000,
                answers: 2_000,
                ..Sample::silent("192.0.2.53".parse().unwrap())
            })]
        }),
        load("nfs and smb client", 600, |_, second| {
            let mounts = u32::from(second % 60 == 0) * 5;
            let bits = if mounts > 0 { 0b1_1111 << 20 } else { 0 };
            vec![benign(opening(mounts, bits, established(3_000, 4_000_000)))]
        }),
    ]
}

#[test]
fn benign_traffic_is_neither_blocked_nor_lost() {
    println!(
        "| {:<26} | {:<28} | {:<9} | {:>7} |",
        "profile", "benign load", "stage", "lost"
    );
    let (mut failed, mut rows) = (Vec::new(), Vec::new());
    for (profile, config) in profiles() {
        for load in loads() {
            let mut network = Network::new(config.clone());
            for second in 0..load.seconds {
                network.second(&(load.offers)(&config, second));
            }
            let stage = network
                .log
                .iter()
                .map(|(_, d)| d.to)
                .max()
                .unwrap_or_default();
            let loss = network.benign.loss();
            println!(
                "| {profile:<26} | {:<28} | {stage:<9} | {:>5.2} % |",
                load.name,
                loss * 100.0
            );
            rows.push(Row {
                scenario: load.name,
                held: None,
                stage,
                lost: loss,
            });
            if stage == Stage::Block || loss > 0.001 {
                failed.push(format!("{profile}: {}: {stage}, {loss}", load.name));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    table::assert_kept(&table::benign(&rows));
}

#[test]
fn w19_replies_and_several_ports_are_no_scan() {
    for (profile, config) in profiles() {
        for load in loads().into_iter().skip(2) {
            let mut network = Network::new(config.clone());
            for second in 0..300 {
                network.second(&(load.offers)(&config, second));
            }
            assert!(
                network.log.is_empty(),
                "{profile}: {}: {:?}",
                load.name,
                network.log[0]
            );
        }
    }
}

#[test]
fn a_shared_address_whose_users_flood_is_throttled_and_keeps_its_connections() {
    for (profile, config) in profiles() {
        let mut network = Network::new(config.clone());
        let all = nat(&config);
        for _ in 0..10 {
            network.second(&[benign(all)]);
        }
        let flood = (config.triggers.syn * 20.0) as u32;
        let flooded = Sample {
            packets: all.packets + u64::from(flood),
            half_open: flood,
            ..opening(all.opens + flood, 0b11, all)
        };
        for _ in 0..300 {
            network.second(&[benign(flooded)]);
        }
        let stage = network.harshest(&peer());
        assert_eq!(stage, Stage::RateSoft, "{profile}");
        let openings = f64::from(flooded.opens) / flooded.packets as f64;
        assert!(
            network.benign.loss() <= openings,
            "{profile}: only openings are lost"
        );
    }
}

/// They do not show as many, and for a minute what was scanned is remembered.
#[test]
fn a_scan_behind_an_address_whose_hosts_look_alike_costs_them_no_packet_once_it_is_over() {
    for (profile, config) in profiles() {
        let mut network = Network::new(config.clone());
        // Half of what a soft limit lets pass at most.
        let most = config.soft_limit().pps.get() / 2;
        let syns = most.min((config.triggers.syn * 0.4) as u32);
        let all = opening(syns, 0b1, established(u64::from(syns) * 10, 100_000));
        let scanned = Sample {
            packets: all.packets + 1_000,
            ports: 266,
            refusals: 1_000,
            ..opening(all.opens + 1_000, u64::MAX, all)
        };
        for second in 0..400 {
            let now = if second == 60 { scanned } else { all };
            network.second(&[benign(now)]);
        }
        assert_eq!(network.harshest(&peer()), Stage::RateSoft, "{profile}");
        assert_eq!(network.benign.dropped, 0.0, "{profile}");
    }
}
