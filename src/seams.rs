//! Where decisions meet the world. A dry run is another [`Enforcer`], not a branch.

use crate::error::Result;
use crate::model::{Hold, Ktime, Source};

/// What became of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// An operator's entry or an exemption of the same source stands; IQ leaves it alone.
    OperatorRules,
}

/// One decided change for one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub source: Source,
    /// What to hold the source to and until when the data plane drops it by itself; `None` lets go.
    pub hold: Option<(Hold, Ktime)>,
}

pub trait Enforcer {
    /// Carries out one tick's orders. One answer per order, in their order; the outer error
    /// means that none was carried out.
    fn enforce(&mut self, orders: &[Order]) -> Result<Vec<Result<Outcome>>>;
}
