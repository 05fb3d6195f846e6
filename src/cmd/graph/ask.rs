use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keeper::GraphKeeper;
use super::named;
use crate::cli::{EdgeArgs, ExportFormat, GraphCommand};
use crate::error::{Doing, Error, Result};
use crate::graph::{Direction, Edge, Mode, Peer, State};
use crate::model::Moment;

/// One request about the graph, as it travels to the running IQ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum GraphAsk {
    Show {
        json: bool,
    },
    Edges {
        state: Option<String>,
    },
    Readiness {
        json: bool,
    },
    Freeze {
        dry_run: bool,
        accept_risk: bool,
        only: Vec<String>,
        accept_edits: bool,
    },
    Thaw,
    Diff,
    Decide {
        allow: bool,
        direction: String,
        peer: String,
        services: Vec<String>,
    },
    Violations {
        json: bool,
    },
    Export {
        format: ExportFormat,
    },
    Enforce {
        lease_ms: u64,
    },
    Observe,
    Confirm,
    Reset,
    /// Where it is kept.
    Store,
}

impl GraphAsk {
    pub(super) fn of(command: &GraphCommand) -> Self {
        match command {
            GraphCommand::Show { json } => Self::Show { json: *json },
            GraphCommand::Edges { state } => Self::Edges {
                state: state.clone(),
            },
            GraphCommand::Readiness { json } => Self::Readiness { json: *json },
            GraphCommand::Freeze {
                dry_run,
                accept_risk,
                only,
                accept_edits,
            } => Self::Freeze {
                dry_run: *dry_run,
                accept_risk: *accept_risk,
                only: only.iter().map(ToString::to_string).collect(),
                accept_edits: *accept_edits,
            },
            GraphCommand::Thaw => Self::Thaw,
            GraphCommand::Diff => Self::Diff,
            GraphCommand::Allow(args) => Self::decide(true, args),
            GraphCommand::Deny(args) => Self::decide(false, args),
            GraphCommand::Violations { json } => Self::Violations { json: *json },
            GraphCommand::Export { format, .. } => Self::Export { format: *format },
            GraphCommand::Enforce { lease } => Self::Enforce {
                lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            },
            GraphCommand::Observe => Self::Observe,
            GraphCommand::Confirm => Self::Confirm,
            GraphCommand::Reset { .. } => Self::Reset,
        }
    }

    /// Whether it asks for what is there and changes nothing.
    pub(crate) const fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Show { .. }
                | Self::Edges { .. }
                | Self::Readiness { .. }
                | Self::Diff
                | Self::Violations { .. }
                | Self::Export { .. }
                | Self::Store
        )
    }

    /// Whether it lets packets through, or keeps what is in force: not to be refused for want of a
    /// database.
    pub(super) const fn releases(&self) -> bool {
        matches!(self, Self::Thaw | Self::Observe | Self::Confirm)
    }

    fn decide(allow: bool, args: &EdgeArgs) -> Self {
        let (direction, peer, services) = named(args);
        Self::Decide {
            allow,
            direction: direction.to_string(),
            peer,
            services: services.iter().map(ToString::to_string).collect(),
        }
    }
}

impl GraphKeeper<'_> {
    /// Does what was asked and says so.
    pub(crate) fn answer(&mut self, ask: &GraphAsk, now: Moment) -> Result<String> {
        match ask {
            GraphAsk::Show { json: true } => Ok(self.view(now).to_json()),
            GraphAsk::Show { json: false } => Ok(self.show(now)),
            GraphAsk::Edges { state } => self.edges(state.as_deref()),
            GraphAsk::Readiness { json } => Ok(self.readiness_told(*json)),
            GraphAsk::Freeze {
                accept_edits: true,
                dry_run,
                ..
            } => self.accept_edits(*dry_run, now),
            GraphAsk::Freeze {
                dry_run,
                accept_risk,
                only,
                ..
            } => {
                let only: Result<_, _> = only.iter().map(|service| service.parse()).collect();
                let only = only.map_err(operator)?;
                self.freeze(only, *dry_run, *accept_risk, now)
            }
            GraphAsk::Thaw => self.switch_to(Mode::Learn, None, now),
            GraphAsk::Diff => self.diff(now),
            GraphAsk::Decide {
                allow,
                direction,
                peer,
                services,
            } => {
                let edges = self.parse_edges(direction, peer, services)?;
                self.decide(&edges, *allow, now)
            }
            GraphAsk::Violations { json } => self.violations_told(*json),
            GraphAsk::Export { format } => self.export(*format, now),
            GraphAsk::Enforce { lease_ms } => {
                let lease = (*lease_ms > 0).then(|| Duration::from_millis(*lease_ms));
                self.switch_to(Mode::Enforce, lease, now)
            }
            GraphAsk::Observe => self.switch_to(Mode::Observe, None, now),
            GraphAsk::Confirm => self.confirm(now),
            GraphAsk::Reset => self.reset(now),
            GraphAsk::Store => self.store_told(),
        }
    }

    /// The absolute path: who asks may be elsewhere.
    fn store_told(&self) -> Result<String> {
        let store = &self.setup.store;
        let path = std::path::absolute(store).doing(|| format!("finding {}", store.display()))?;
        Ok(path.display().to_string())
    }

    fn parse_edges(&self, direction: &str, peer: &str, services: &[String]) -> Result<Vec<Edge>> {
        let direction: Direction = direction.parse().map_err(operator)?;
        let groups = self.known();
        let peer = Peer::parse(peer, |name| groups.contains(name)).map_err(operator)?;
        services
            .iter()
            .map(|service| {
                let edge = Edge {
                    direction,
                    peer: peer.clone(),
                    service: service.parse().map_err(operator)?,
                };
                edge.check(self.v6_bits())
                    .and_then(|()| edge.check_written())
                    .map_err(operator)?;
                Ok(edge)
            })
            .collect()
    }

    pub(super) fn state_named(name: &str) -> Result<State> {
        State::from_name(name).ok_or_else(|| {
            let names: Vec<&str> = State::ALL.into_iter().map(State::name).collect();
            Error::operator(format!("no state '{name}'; there are {}", names.join(", ")))
        })
    }
}

fn operator(error: impl std::fmt::Display) -> Error {
    Error::operator(error.to_string())
}
