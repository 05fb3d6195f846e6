//! The frozen file as it is on disk, which an operator may have edited since it was read.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::keeper::GraphKeeper;
use super::{GRAPH, accepted_path, frozen_path, read_sound};
use crate::error::{Error, Result};
use crate::graph::{Drift, Frozen, Mode, State};
use crate::model::Moment;
use crate::report::drift_text;
use crate::store::write_whole;
use crate::trust;

/// Silence after which a frozen edge counts as unused.
const UNUSED_FOR: Duration = Duration::from_secs(30 * 86_400);

/// The file against what this process knows of it.
enum OnDisk {
    Gone,
    /// It says what is known; its comments may be new.
    AsKnown(String),
    Edited(String),
}

/// What the frozen file says, if that was accepted: by a freeze, or as the first one there is.
///
/// # Errors
/// Operator's, if it was edited, or put in place of the accepted one.
pub(super) fn read_accepted(
    store: &Path,
    node: &str,
    v6_bits: u8,
) -> Result<Option<(Frozen, String)>> {
    let path = frozen_path(store);
    let read = read_sound(&path, v6_bits)?;
    let accepted = read_sound(&accepted_path(store), v6_bits).ok().flatten();
    match (&read, accepted) {
        (Some((written, _)), Some((accepted, _)))
            if accepted.node == node && accepted != *written =>
        {
            Err(Error::operator(format!(
                "{} is not what was accepted last; 'kernloom graph diff' tells what is different, 'kernloom \
                 graph freeze --accept-edits' takes it",
                path.display()
            )))
        }
        _ => Ok(read),
    }
}

impl GraphKeeper<'_> {
    fn on_disk(&self) -> Result<OnDisk> {
        let path = frozen_path(&self.setup.store);
        let text = match trust::read_settings(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(OnDisk::Gone),
            Err(error) => {
                return Err(Error::operator(format!(
                    "reading {}: {error}",
                    path.display()
                )));
            }
        };
        let known = match &self.frozen {
            Ok(Some((known, _))) => Frozen::from_text(&text).as_ref() == Ok(known),
            Ok(None) | Err(_) => false,
        };
        Ok(if known {
            OnDisk::AsKnown(text)
        } else {
            OnDisk::Edited(text)
        })
    }

    /// The file's text; `None` where there is no file.
    ///
    /// # Errors
    /// Operator's, if the file says something else: what was edited must not be written over.
    pub(super) fn unedited(&self) -> Result<Option<String>> {
        match self.on_disk()? {
            OnDisk::Gone => Ok(None),
            OnDisk::AsKnown(text) => Ok(Some(text)),
            OnDisk::Edited(text) => Err(Error::operator(format!(
                "{}review it, then 'kernloom graph freeze --accept-edits'; or remove it to give the edits up. \
                 Nothing was changed",
                self.edits(&text)
            ))),
        }
    }

    /// That the file was edited, and what accepting that would change.
    fn edits(&self, text: &str) -> String {
        let told = match Frozen::from_edited(text) {
            Ok(edited) => self.in_force(&edited).changes_to(&edited),
            Err(error) => format!("it cannot be read: {error}\n"),
        };
        let path = frozen_path(&self.setup.store);
        format!(
            "{} was edited and not accepted yet:\n{told}",
            path.display()
        )
    }

    /// Keeps a copy of what is gone by, for a start that finds the file edited or damaged.
    pub(super) fn keep_accepted(&self) {
        let (Ok(_), Ok(Some((_, text)))) = (self.own_frozen(), &self.frozen) else {
            return;
        };
        let path = accepted_path(&self.setup.store);
        if trust::read_to_string(&path).is_ok_and(|kept| kept == *text) {
            return;
        }
        if let Err(error) = write_whole(&path, text) {
            log::error!(target: GRAPH, "{error}; iq would not start if the frozen file was damaged now");
            // An older one would have the next start take the file for an edited one.
            let _ = fs::remove_file(&path);
        }
    }

    /// Goes by what was accepted last where an IQ starts, is to go by the file, and cannot use it: an edit
    /// that nobody accepted must not leave the host without protection. What is wrong, and how to mend it.
    ///
    /// `asked`: what the start asks for; `runs`: what the data plane does by now.
    pub(super) fn fall_back(&mut self, asked: Option<Mode>, runs: Mode) -> Option<String> {
        let path = frozen_path(&self.setup.store);
        let (wanted, why) = match &self.frozen {
            Ok(Some(_)) => return None,
            // Who never froze has nothing to fall back on, whatever a profile asks for.
            Ok(None) => (
                self.mode,
                format!(
                    "{} is gone; 'kernloom graph freeze' writes it again",
                    path.display()
                ),
            ),
            Err(error) => (self.mode.or(asked), error.clone()),
        };
        if !wanted.into_iter().chain([runs]).any(Mode::is_frozen) {
            return None;
        }
        let accepted = accepted_path(&self.setup.store);
        let read = read_sound(&accepted, self.v6_bits()).ok().flatten();
        let (frozen, text) = read.filter(|(frozen, _)| frozen.node == self.node)?;
        self.frozen = Ok(Some((frozen, text)));
        Some(format!(
            "{why}. Until then, what was accepted last is in force ({accepted}). To give the edits up, copy \
             that over {path}",
            accepted = accepted.display(),
            path = path.display()
        ))
    }

    /// The frozen graph that is known; where its file was edited before this process began, what of it
    /// is recorded, and the rest as in `edited`.
    pub(super) fn in_force(&self, edited: &Frozen) -> Frozen {
        let recorded = |state| {
            let records = self.learner.records().iter();
            let of = records.filter(move |(_, record)| record.state == state);
            of.map(|(edge, _)| edge.clone()).collect()
        };
        match &self.frozen {
            Ok(Some((frozen, _))) => frozen.clone(),
            Ok(None) => Frozen::default(),
            Err(_) => Frozen {
                edges: recorded(State::Frozen),
                denied: Some(recorded(State::Denied)),
                ..edited.clone()
            },
        }
    }

    /// What is seen against what is frozen: in the file, whether or not its edits were accepted.
    pub(super) fn diff(&self, now: Moment) -> Result<String> {
        let path = frozen_path(&self.setup.store);
        let mut text = self.groups_apart();
        let drift = |frozen: &Frozen| {
            let records = self.learner.records();
            drift_text(&Drift::between(frozen, records, self.wall(now), UNUSED_FOR))
        };
        match self.on_disk()? {
            OnDisk::Edited(written) => {
                text.push_str(&self.edits(&written));
                if let Ok(edited) = Frozen::from_edited(&written) {
                    text.push_str("'kernloom graph freeze --accept-edits' takes it as it is\n");
                    text.push_str(&drift(&edited));
                } else {
                    text.push_str(
                        "mend that first; until then, what was accepted last is in force\n",
                    );
                }
            }
            OnDisk::Gone => {
                let frozen = self.frozen()?;
                text.push_str(&format!(
                    "{} is gone; 'kernloom graph freeze' writes it again\n{}",
                    path.display(),
                    drift(frozen)
                ));
            }
            OnDisk::AsKnown(_) => text.push_str(&drift(self.frozen()?)),
        }
        Ok(text)
    }
}
