//! IQ's metrics and the two ways out for them.

use std::time::Duration;

use super::IQ;
use crate::dataplane::{Shield, SourceTable};
use crate::engine::{Decision, Engine, Triggers};
use crate::error::Result;
use crate::host::IqHost;
use crate::metrics::{Gauges, GraphGauges, Metrics, Server, Textfile};
use crate::model::{Moment, Stage};
use crate::runtime::{moment, now};
use crate::seams::Outcome;
use crate::telemetry::Sample;

/// Metrics that somebody wants to see.
pub(super) struct Exposed {
    pub(super) metrics: Metrics,
    server: Option<Server>,
    textfile: Option<Textfile>,
    /// Of the policy that was counted last.
    generation: Option<u32>,
    /// Of the window that was judged last.
    sources: [u64; Stage::ALL.len()],
    peaks: Triggers,
}

impl Exposed {
    /// `None` if there is no way out for metrics.
    pub(super) fn new(settings: &IqHost) -> Result<Option<Self>> {
        let listen = settings.metrics_listen;
        let textfile = settings.metrics_textfile.as_deref();
        if listen.is_none() && textfile.is_none() {
            return Ok(None);
        }
        let textfile = textfile.map(Textfile::at).transpose()?;
        let server = listen.map(Server::listen).transpose()?;
        if let Some(server) = &server {
            let address = server.address()?;
            log::info!(target: IQ, "metrics at http://{address}/metrics");
            if !address.ip().is_loopback() {
                log::warn!(target: IQ, "metrics are served to whoever reaches {address}, without a password");
            }
        }
        Ok(Some(Self {
            metrics: Metrics::default(),
            server,
            textfile,
            generation: None,
            sources: [0; Stage::ALL.len()],
            peaks: Triggers::default(),
        }))
    }

    pub(super) fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    pub(super) fn serve(&mut self) -> Result<()> {
        let metrics = &self.metrics;
        match &mut self.server {
            Some(server) => server.serve(now()?, &|| metrics.page()),
            None => Ok(()),
        }
    }

    pub(super) fn decided(&mut self, decision: &Decision, outcome: &Result<Outcome>) {
        match outcome {
            Ok(Outcome::Done) => self.metrics.decided(decision),
            Ok(Outcome::OperatorRules) => self.metrics.overruled(),
            Err(_) => self.metrics.failed(1),
        }
    }

    /// Takes note of what a window of `length` saw at most, and of who is held after it.
    pub(super) fn measured(&mut self, engine: &Engine, peaks: Peaks, length: Duration) {
        self.sources = [0; Stage::ALL.len()];
        for (_, stage, _) in engine.held() {
            self.sources[stage as usize] += 1;
        }
        self.sources[Stage::Observe as usize] = engine.overview().free;
        self.peaks = peaks.per_second(length);
    }

    /// The end of the tick that began at `began`.
    pub(super) fn ticked(
        &mut self,
        (shield, table): (&Shield, &SourceTable),
        engine: &Engine,
        graph: Option<GraphGauges>,
        began: Moment,
        dry_run: bool,
    ) -> Result<()> {
        let generation = shield.generation();
        if self.generation == Some(generation) {
            self.metrics.count_ended(began.ktime);
        } else {
            self.generation = Some(generation);
            self.metrics.policy(&shield.entries()?, began.ktime);
        }
        let now = moment()?;
        let gauges = Gauges {
            dry_run,
            sources: self.sources,
            table_capacity: table.shape().entries() as u64,
            policy_capacity: shield.max_deny().into(),
            triggers: engine.config().triggers,
            peaks: self.peaks,
            graph,
            time: now.unix.as_secs_f64(),
            ..Gauges::default()
        };
        let counters = shield.counters()?;
        let now = now.ktime;
        self.metrics
            .ticked(now.since(began.ktime), counters, gauges);
        if let Some(server) = &mut self.server {
            server.lose_patience(now);
        }
        if let Some(file) = self.textfile.as_mut().filter(|file| file.is_due(now))
            && let Err(error) = file.write(&self.metrics.page(), now)
        {
            log::error!(target: IQ, "{error}; trying again");
        }
        Ok(())
    }
}

/// The most that one source did in a window.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    packets: u64,
    bytes: u64,
    syns: u32,
    ports: u32,
}

impl Peaks {
    pub(super) fn see(&mut self, sample: &Sample) {
        self.packets = self.packets.max(sample.packets);
        self.bytes = self.bytes.max(sample.bytes);
        self.syns = self.syns.max(sample.syns);
        self.ports = self.ports.max(sample.ports);
    }

    #[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
    pub(super) fn per_second(&self, length: Duration) -> Triggers {
        let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
        Triggers {
            pps: self.packets as f64 / seconds,
            bps: self.bytes as f64 / seconds,
            syn: f64::from(self.syns) / seconds,
            ports: f64::from(self.ports) / seconds,
        }
    }
}
