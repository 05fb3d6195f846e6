//! Whether what IQ protects is still attached. Silence about that would be false protection.

use super::IQ;
use crate::dataplane::{Attached, ModeChoice, PinDir, Shield, interface_index};
use crate::error::{Error, Result};
use crate::report::attached_line;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Attached,
    /// The interface is not there; it is attached to when it returns.
    Gone,
    /// The interface is there and was detached from, or refuses; said once.
    Detached,
}

struct Watched {
    interface: String,
    ifindex: u32,
    condition: Condition,
}

pub(super) struct Links {
    watched: Vec<Watched>,
}

impl Links {
    /// Watches what is attached now.
    pub(super) fn now(pins: &PinDir) -> Result<Self> {
        let watched = |attached: Attached| Watched {
            interface: attached.interface,
            ifindex: attached.ifindex,
            condition: Condition::Attached,
        };
        let all = Shield::attached(pins)?;
        Ok(Self {
            watched: all.into_iter().map(watched).collect(),
        })
    }

    /// Those watched, by number.
    pub(super) fn interfaces(&self) -> Vec<u32> {
        self.watched.iter().map(|watched| watched.ifindex).collect()
    }

    /// The interfaces attached to now, by number.
    ///
    /// # Errors
    /// When the instance itself was removed: nothing that IQ writes has an effect any more.
    pub(super) fn check(&mut self, shield: &Shield, pins: &PinDir) -> Result<Vec<u32>> {
        if !pins.is_loaded()? {
            return Err(Error::world(format!(
                "the data plane in {} was removed ('kernloom shield detach --purge'); start iq again to protect",
                pins.path().display()
            )));
        }
        let attached = Shield::attached(pins)?;
        for watched in &mut self.watched {
            if attached.iter().any(|one| one.ifindex == watched.ifindex) {
                watched.turn(Condition::Attached, "is protected again");
                continue;
            }
            match interface_index(&watched.interface) {
                Err(_) => watched.turn(
                    Condition::Gone,
                    "is gone; it is protected again when it returns",
                ),
                Ok(ifindex)
                    if ifindex != watched.ifindex || watched.condition == Condition::Gone =>
                {
                    watched.return_as(ifindex, shield, pins);
                }
                Ok(_) => watched.turn(
                    Condition::Detached,
                    "was detached and is not protected; 'kernloom shield attach' protects it",
                ),
            }
        }
        Ok(attached.iter().map(|attached| attached.ifindex).collect())
    }
}

impl Watched {
    fn turn(&mut self, to: Condition, what: &str) {
        if self.condition != to {
            log::warn!(target: IQ, "{} {what}", self.interface);
            self.condition = to;
        }
    }

    /// Attaches to the interface that has the name now. A lock that is taken is tried next tick.
    fn return_as(&mut self, ifindex: u32, shield: &Shield, pins: &PinDir) {
        let Ok(lock) = pins.try_lock() else { return };
        match shield.attach(pins, &self.interface, ModeChoice::Auto, false, &lock) {
            Ok(attached) => {
                log::info!(target: IQ, "{}", attached_line(&attached));
                self.condition = Condition::Attached;
            }
            Err(error) => self.turn(
                Condition::Detached,
                &format!("is back and unprotected: {error}"),
            ),
        }
        self.ifindex = ifindex;
    }
}
