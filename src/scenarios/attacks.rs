use super::network::{Fate, Network, Offer, Offers};
use super::profiles;
use super::table::{self, Row};
use crate::engine::Config;
use crate::model::{Source, Stage};
use crate::telemetry::Sample;

fn attacker() -> Source {
    "198.51.100.7".parse().unwrap()
}

fn host(n: u32) -> Source {
    Source::host(std::net::Ipv4Addr::from(n).into())
}

/// The n-th source of 2^32, no two alike, spread over all of them.
fn spread(n: u32) -> Source {
    host(n.wrapping_mul(2_654_435_761))
}

fn hostile(traffic: Sample) -> Offer {
    Offer {
        traffic,
        hostile: true,
    }
}

fn count(value: f64) -> u32 {
    value as u32
}

/// SYNs to one port that nobody follows up.
fn syns(source: Source, rate: u32) -> Offer {
    hostile(Sample {
        packets: rate.into(),
        bytes: u64::from(rate) * 60,
        syns: rate,
        opens: rate,
        half_open: rate,
        port_bits: 1,
        stack_bits: 1,
        ..Sample::silent(source)
    })
}

fn udp(source: Source, rate: u32) -> Offer {
    hostile(Sample {
        packets: rate.into(),
        bytes: u64::from(rate) * 512,
        opens: rate,
        port_bits: 1,
        ..Sample::silent(source)
    })
}

/// ACKs of no connection; each is answered with RST.
fn acks(source: Source, rate: u32) -> Offer {
    hostile(Sample {
        packets: rate.into(),
        bytes: u64::from(rate) * 60,
        refusals: rate,
        strays: rate,
        ..Sample::silent(source)
    })
}

/// Probes of `rate` ports in a second, nearly all closed; `seed` chooses them.
fn probes(kind: Scan, rate: u32, seed: u64) -> Offer {
    let mut bits = 0u64;
    for n in 0..u64::from(rate) {
        bits |= 1 << ((seed + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
    }
    let (opens, syns, refusals) = match kind {
        Scan::Syn | Scan::Connect => (rate, rate, rate),
        // The kernel answers unreachable about once a second.
        Scan::Udp => (rate, 0, 1),
        Scan::Fin => (0, 0, rate),
    };
    hostile(Sample {
        packets: rate.into(),
        bytes: u64::from(rate) * 60,
        syns,
        opens,
        refusals,
        strays: if kind == Scan::Fin { refusals } else { 0 },
        port_bits: if kind == Scan::Fin { 0 } else { bits },
        proven: kind == Scan::Connect,
        ..Sample::silent(attacker())
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scan {
    Syn,
    Connect,
    Udp,
    Fin,
}

/// One attack: what is sent in the n-th second, and within how many seconds it is to be limited.
struct Attack {
    name: &'static str,
    seconds: u32,
    within: u32,
    offers: Offers,
}

fn attack(
    name: &'static str,
    seconds: u32,
    within: u32,
    offers: impl Fn(&Config, u32) -> Vec<Offer> + 'static,
) -> Attack {
    Attack {
        name,
        seconds,
        within,
        offers: Box::new(offers),
    }
}

fn attacks() -> Vec<Attack> {
    let syn = |config: &Config| config.triggers.syn;
    let volume = |config: &Config| count((config.triggers.pps * 15.0).max(50_000.0));
    let scan = |name, kind| {
        attack(name, 5, 2, move |_, second| {
            vec![probes(kind, 1_000, u64::from(second) * 1_000)]
        })
    };
    vec![
        attack("syn flood", 60, 2, move |c, _| {
            vec![syns(attacker(), count(syn(c) * 20.0))]
        }),
        attack("syn flood, 1 M spoofed", 6, 2, move |c, second| {
            let rate = count((syn(c) * 50.0).max(20_000.0));
            let first = second * rate;
            let spoofed = (0..rate).map(|n| syns(spread((first + n) % 1_000_000), 1));
            spoofed.map(fresh).collect()
        }),
        attack("udp flood, 1 M spoofed", 6, 2, move |c, second| {
            let sources = count(c.triggers.pps * 16.0);
            let first = second * sources;
            let spoofed = (0..sources).map(|n| udp(spread((first + n) % 1_000_000), 8));
            spoofed.map(fresh).collect()
        }),
        attack("udp flood", 60, 2, move |c, _| {
            vec![udp(attacker(), volume(c))]
        }),
        attack("ack flood", 60, 2, move |c, _| {
            vec![acks(attacker(), volume(c))]
        }),
        attack("syn flood, 300 sources", 30, 2, move |c, _| {
            let each = count((syn(c) * 0.5).max(100.0));
            (0..300).map(|n| syns(spread(n), each)).collect()
        }),
        scan("nmap -sS", Scan::Syn),
        scan("nmap -sT", Scan::Connect),
        scan("nmap -sU", Scan::Udp),
        scan("nmap -sF", Scan::Fin),
        attack("slow scan, 4 a minute", 1_200, 600, |_, second| {
            let due = second % 15 == 0;
            let port = u64::from(second / 15);
            due.then(|| probes(Scan::Syn, 1, port))
                .into_iter()
                .collect()
        }),
        attack("pulse, 3 s of 15", 600, 2, move |c, second| {
            let on = second % 15 < 3;
            let flood = syns(attacker(), count(syn(c) * 15.0));
            on.then_some(flood).into_iter().collect()
        }),
        attack("abuser at 0.8 of the trigger", 3_600, 3_600, move |c, _| {
            let rate = count(syn(c) * 0.8);
            let mut offer = syns(attacker(), rate);
            offer.traffic.proven = true;
            offer.traffic.half_open = 0;
            offer.traffic.packets = u64::from(rate) * 2;
            vec![offer]
        }),
    ]
}

fn fresh(offer: Offer) -> Offer {
    let traffic = Sample {
        fresh: true,
        ..offer.traffic
    };
    Offer { traffic, ..offer }
}

/// Who was there before, each in a network of its own: 50 clients, a transfer, a busy resolver.
fn clients() -> Vec<Offer> {
    let client = |n: u32| Sample {
        packets: 20,
        bytes: 16_000,
        syns: 1,
        opens: 1,
        port_bits: 2,
        stack_bits: 4,
        proven: true,
        ..Sample::silent(host(0xc633_0000 + n * 256 + 9))
    };
    let transfer = Sample {
        packets: 5_754,
        bytes: 8_000_000,
        proven: true,
        ..Sample::silent(host(0xcb00_7109))
    };
    let resolver = Sample {
        packets: 2_000,
        bytes: 300_000,
        opens: 2_000,
        answers: 2_000,
        ..Sample::silent(host(0xc000_0235))
    };
    let all = (0..50).map(client).chain([transfer, resolver]);
    let offer = |traffic| Offer {
        traffic,
        hostile: false,
    };
    all.map(offer).collect()
}

#[test]
fn every_attack_is_limited_in_time_and_nobody_else_suffers() {
    println!(
        "| {:<26} | {:<28} | {:>7} | {:>6} | {:<9} | {:>7} |",
        "profile", "attack", "limited", "passed", "stage", "benign"
    );
    let (mut failed, mut rows) = (Vec::new(), Vec::new());
    for (profile, config) in profiles() {
        for attack in attacks() {
            let mut network = Network::new(config.clone());
            let clients = clients();
            (0..5).for_each(|_| network.second(&clients));
            let mut limited = None;
            for second in 0..attack.seconds {
                let mut offers = (attack.offers)(&config, second);
                let first = offers.first().map(|offer| offer.traffic.source);
                offers.extend(&clients);
                network.second(&offers);
                let held = first.is_some_and(|source| network.is_limited(&source));
                if held && limited.is_none() {
                    limited = Some(second + 1);
                }
            }
            let stage = network.harshest(&attacker());
            let benign_held = clients
                .iter()
                .any(|offer| network.harshest(&offer.traffic.source) > Stage::Observe);
            let loss = network.benign.loss();
            println!(
                "| {profile:<26} | {:<28} | {:>5} s | {:>4.1} % | {stage:<9} | {:>5.2} % |",
                attack.name,
                limited.map_or("never".to_owned(), |second| second.to_string()),
                (1.0 - network.hostile.loss()) * 100.0,
                loss * 100.0,
            );
            rows.push(Row {
                scenario: attack.name,
                held: limited,
                stage,
                lost: network.hostile.loss(),
            });
            let late = limited.is_none_or(|second| second > attack.within);
            if late || benign_held || loss > 0.001 {
                failed.push(format!(
                    "{profile}: {}: {limited:?} loss {loss}",
                    attack.name
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    table::assert_kept(&table::attacks(&rows));
}

#[test]
fn w08_floods_of_many_sources_are_cut_and_not_just_told() {
    for (profile, config) in profiles() {
        for name in ["syn flood, 1 M spoofed", "syn flood, 300 sources"] {
            let attack = attacks().into_iter().find(|a| a.name == name).unwrap();
            let mut network = Network::new(config.clone());
            for second in 0..4 {
                network.second(&(attack.offers)(&config, second));
            }
            network.hostile = Fate::default();
            network.second(&(attack.offers)(&config, 4));
            let passed = 1.0 - network.hostile.loss();
            let of = |source| network.log.iter().filter(move |(_, d)| d.source == source);
            let told: Vec<_> = of(spread(0)).chain(of("::/0".parse().unwrap())).collect();
            assert!(passed < 0.6, "{profile}: {name}: {passed} pass: {told:#?}");
        }
    }
}

#[test]
fn w14_a_pulse_attack_does_not_wait_out_its_limit() {
    for (profile, config) in profiles() {
        let pulse = attacks()
            .into_iter()
            .find(|a| a.name.starts_with("pulse"))
            .unwrap();
        let mut network = Network::new(config.clone());
        for second in 0..pulse.seconds {
            network.second(&(pulse.offers)(&config, second));
            let stage = network.stage(&attacker());
            assert!(
                second < 2 || stage > Stage::Observe,
                "{profile}: free at {second} s"
            );
        }
    }
}

#[test]
fn w24_each_pure_attack_reaches_the_packet_limit() {
    for (profile, config) in profiles() {
        for name in ["syn flood", "udp flood", "ack flood", "nmap -sS"] {
            let attack = attacks().into_iter().find(|a| a.name == name).unwrap();
            let mut network = Network::new(config.clone());
            for second in 0..30 {
                network.second(&(attack.offers)(&config, second));
            }
            let stage = network.harshest(&attacker());
            assert!(stage >= Stage::RateHard, "{profile}: {name}: {stage}");
        }
    }
}
