//! What the program reports by itself, between ticks.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use super::abi::{kl_event, kl_event_kind};
use super::edges::{peer_of, service_of};
use super::pod;
use crate::error::{Doing, Result};
use crate::graph::{Direction, Service};
use crate::model::{Ktime, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub time: Ktime,
    pub source: Source,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The source's port sketch crossed the alert bound, with so many bits set.
    Ports(u32),
    /// A packet from the source, or to it where the direction is out, that the frozen graph lacks.
    Violation(Direction, Service),
}

/// The consuming end of the ring buffer. One consumer at a time: a second would take its events.
pub struct Events {
    ring: RingBuffer<'static>,
    map: MapHandle,
    arrived: Rc<RefCell<Vec<Event>>>,
}

/// Events taken per wake-up, so that a flood of them cannot hold the loop.
const MOST_PER_WAKE: usize = 1_024;

impl Events {
    pub(super) fn open(map: MapHandle, v6_bits: u8) -> Result<Self> {
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&arrived);
        let mut builder = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            sink.borrow_mut().extend(decode(bytes, v6_bits));
            0
        };
        // The builder only needs the descriptor; `map` itself is kept for epoll.
        builder.add(&map, take).doing(|| "opening the event ring")?;
        let ring = builder.build().doing(|| "opening the event ring")?;
        Ok(Self { ring, map, arrived })
    }

    /// Everything waiting, at most `MOST_PER_WAKE` of it.
    pub fn drain(&self) -> Vec<Event> {
        let taken = self.ring.consume_raw_n(MOST_PER_WAKE);
        if taken < 0 {
            log::warn!(
                "reading events: {}",
                std::io::Error::from_raw_os_error(-taken)
            );
        }
        self.arrived.take()
    }
}

fn decode(bytes: &[u8], v6_bits: u8) -> Option<Event> {
    let event: kl_event = pod::read(bytes)?;
    let (source, what) = if event.kind == kl_event_kind::KL_EVENT_PORTS.0 {
        let source = super::sources::source_of(event.source, v6_bits);
        (source, What::Ports(event.value))
    } else if event.kind == kl_event_kind::KL_EVENT_VIOLATION.0 {
        let (direction, service) = service_of(event.value)?;
        let peer = peer_of(event.source, event.value, v6_bits);
        (peer, What::Violation(direction, service))
    } else {
        return None;
    };
    Some(Event {
        time: Ktime::from_nanos(event.time_ns),
        source,
        what,
    })
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}
