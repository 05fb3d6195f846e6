//! `iq --record`: keeps what the engine is given and what it decides.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::IQ;
use super::learn::Learner;
use crate::autotune::TunerState;
use crate::engine::{Decision, Engine, EngineState};
use crate::error::{Error, Result};
use crate::model::{Moment, Source};
use crate::record::{Frame, Start, Writer};
use crate::telemetry::{Sample, Window};

/// Ends by itself when the file is full or cannot be written; the run goes on.
pub(super) struct Recorder {
    writer: Option<Writer>,
    exempt: (Vec<Source>, Vec<Source>),
}

/// What a run goes by, in the words of its settings.
pub(super) struct Run<'a> {
    pub(super) profile: &'a str,
    pub(super) settings: String,
    pub(super) whitelist_learn: bool,
    pub(super) dry_run: bool,
}

impl Recorder {
    pub(super) fn create(path: &Path, most: u64) -> Result<Self> {
        Ok(Self {
            writer: Some(Writer::create(path, most)?),
            exempt: (Vec::new(), Vec::new()),
        })
    }

    /// Writes down how things stand, and makes `engine` stand exactly so.
    pub(super) fn start(
        &mut self,
        engine: &mut Engine,
        learner: &Learner,
        run: Run<'_>,
        now: Moment,
    ) -> Result<()> {
        let state = engine.state(now);
        *engine = Engine::new(learner.config());
        engine.restore(&state, now);
        let autotune = learner.state().as_ref().map(packed).transpose()?;
        self.write(&Frame::Start(Box::new(Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: run.profile.to_owned(),
            settings: run.settings,
            whitelist_learn: run.whitelist_learn,
            dry_run: run.dry_run,
            now: now.ktime,
            unix: now.unix,
            engine: packed(&state)?,
            autotune,
        })));
        Ok(())
    }

    /// Who is exempt in the tick or alert that follows.
    pub(super) fn exempt(&mut self, whitelisted: &[Source], others: &[Source]) {
        if self.exempt.0 != whitelisted || self.exempt.1 != others {
            self.exempt = (whitelisted.to_vec(), others.to_vec());
            self.write(&Frame::Exempt {
                whitelisted: whitelisted.to_vec(),
                others: others.to_vec(),
            });
        }
    }

    pub(super) fn tick(
        &mut self,
        now: Moment,
        window: Window<Vec<Sample>>,
        decisions: &[Decision],
    ) {
        self.write(&Frame::Tick {
            now: now.ktime,
            unix_ms: now.unix_ms(now.ktime),
            length: window.length,
            coverage: window.coverage,
            all: window.all,
            samples: window.samples,
            decisions: decisions.to_vec(),
        });
    }

    pub(super) fn alert(&mut self, now: Moment, sample: &Sample, decision: Option<&Decision>) {
        self.write(&Frame::Alert {
            now: now.ktime,
            sample: *sample,
            decision: decision.cloned(),
        });
    }

    pub(super) fn forget(&mut self, sources: &[Source]) {
        self.write(&Frame::Forget(sources.to_vec()));
    }

    pub(super) fn reset(&mut self) {
        self.write(&Frame::Reset);
    }

    fn write(&mut self, frame: &Frame) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        match writer.write(frame) {
            Ok(true) => {}
            Ok(false) => {
                log::warn!(target: IQ, "the recording is full and ends here; --record-max makes it longer");
                self.writer = None;
            }
            Err(error) => {
                log::error!(target: IQ, "{error}; the recording ends here");
                self.writer = None;
            }
        }
    }
}

fn packed(state: &impl Serialize) -> Result<Vec<u8>> {
    postcard::to_stdvec(state).map_err(|error| Error::world(format!("recording: {error}")))
}

fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|error| Error::operator(format!("the recording's start cannot be read: {error}")))
}

/// Who was held, and what was learned, when the recording began.
pub(super) fn began(start: &Start) -> Result<(EngineState, Option<TunerState>)> {
    let autotune = start.autotune.as_deref().map(unpacked).transpose()?;
    Ok((unpacked(&start.engine)?, autotune))
}
