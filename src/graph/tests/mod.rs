mod files;
mod freezing;
mod learning;
mod population;

use super::{Direction, Edge, Evidence, Observation, Peer, Service};
use crate::model::{Source, Wall};

const DAY: u64 = 86_400;
/// A Monday, 00:00 UTC.
const START: Wall = Wall::from_secs(20_003 * DAY);

fn source(text: &str) -> Source {
    text.parse().unwrap()
}

fn edge(peer: &str, service: &str) -> Edge {
    Edge {
        direction: Direction::In,
        peer: Peer::parse(peer, |name| name == "office" || name == "internet").unwrap(),
        service: service.parse::<Service>().unwrap(),
    }
}

/// One completed connection.
fn seen(peer: &str, service: &str) -> Observation {
    Observation {
        edge: edge(peer, service),
        source: source(peer),
        evidence: Evidence {
            connections: 1,
            packets: 10,
            bytes: 1_000,
            handshakes: 1,
        },
    }
}

/// A connection that nobody completed.
fn tried(peer: &str, service: &str) -> Observation {
    let mut tried = seen(peer, service);
    tried.evidence.handshakes = 0;
    tried
}
