use super::resolve::Effective;
use super::schema::GraphMode;
use crate::graph::{Mode, Promotion};
use crate::model::Source;

/// What a profile says of the graph. Keys that are 0 keep their defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphPlan {
    pub enabled: bool,
    /// `None`: nothing but learning is asked for.
    pub mode: Option<Mode>,
    pub promotion: Promotion,
    /// Sources that teach nothing.
    pub exclude: Vec<Source>,
}

impl Effective {
    pub fn graph(&self) -> GraphPlan {
        let graph = &self.spec().graph;
        let mut promotion = Promotion::default();
        let written = &graph.promotion;
        if written.min_seen_count > 0 {
            promotion.min_seen = written.min_seen_count.into();
        }
        if written.min_windows > 0 {
            promotion.min_windows = written.min_windows.into();
        }
        if !written.min_age.get().is_zero() {
            promotion.min_age = written.min_age.get();
        }
        if !written.expire_ttl.get().is_zero() {
            promotion.expire_ttl = written.expire_ttl.get();
        }
        GraphPlan {
            enabled: graph.enabled,
            mode: match graph.mode {
                GraphMode::Learn => None,
                GraphMode::FrozenObserve => Some(Mode::Observe),
                GraphMode::FrozenEnforce => Some(Mode::Enforce),
            },
            promotion,
            exclude: graph
                .exclude
                .source_cidrs
                .iter()
                .map(|cidr| cidr.get())
                .collect(),
        }
    }
}
