//! Why entries were made: texts kept beside the policy, once each.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::abi::{kl_limits, kl_note};
use super::pod::{bytes_of, read};
use super::rule::NoteId;
use crate::error::{Doing, Error, Result};

/// The texts by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(BTreeMap<u16, String>);

impl Notes {
    /// Empty for an entry that says nothing.
    pub fn text(&self, id: NoteId) -> &str {
        self.0.get(&id.0).map_or("", String::as_str)
    }

    pub(super) fn read(map: &MapHandle) -> Result<Self> {
        let mut texts = BTreeMap::new();
        for key in map.keys() {
            let Some(id) = key.as_slice().try_into().ok().map(u32::from_ne_bytes) else {
                continue;
            };
            let value = map
                .lookup(&key, MapFlags::ANY)
                .doing(|| "reading the reasons")?;
            if let (Ok(id), Some(note)) = (u16::try_from(id), value.as_deref().and_then(read)) {
                texts.insert(id, text_of(&note));
            }
        }
        Ok(Self(texts))
    }

    /// The key of a text, kept from now on. `in_use` is asked only when there is no room.
    pub(super) fn keep(
        map: &MapHandle,
        text: &str,
        in_use: impl FnOnce() -> Result<Vec<NoteId>>,
    ) -> Result<NoteId> {
        let text = reason_text(text).map_err(Error::operator)?;
        if text.is_empty() {
            return Ok(NoteId::default());
        }
        let note = note_of(text);
        let Self(mut known) = Self::read(map)?;
        if let Some((id, _)) = known.iter().find(|(_, known)| *known == text) {
            return Ok(NoteId(*id));
        }
        let most = kl_limits::KL_NOTES.0 as usize;
        if known.len() >= most {
            let used = in_use()?;
            let idle: Vec<u16> = known
                .keys()
                .copied()
                .filter(|id| !used.contains(&NoteId(*id)))
                .collect();
            for id in idle {
                map.delete(&u32::from(id).to_ne_bytes())
                    .doing(|| "forgetting an unused reason")?;
                known.remove(&id);
            }
        }
        let free = (1..=u16::MAX).find(|id| !known.contains_key(id));
        let (Some(id), true) = (free, known.len() < most) else {
            return Err(Error::operator(format!(
                "no room for the reason '{text}': entries carry {most} different ones already; use one of them"
            )));
        };
        map.update(&u32::from(id).to_ne_bytes(), bytes_of(&note), MapFlags::ANY)
            .doing(|| format!("keeping the reason '{text}'"))?;
        Ok(NoteId(id))
    }
}

fn text_of(note: &kl_note) -> String {
    let bytes: Vec<u8> = note
        .text
        .iter()
        .map(|byte| byte.to_ne_bytes()[0])
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A reason as it is kept: without the blanks around it, which no list could carry.
///
/// # Errors
/// Why it would not read back: longer than 64 bytes, or control characters in it.
pub fn reason_text(text: &str) -> Result<&str, String> {
    let most = kl_limits::KL_NOTE_BYTES.0 as usize;
    let text = text.trim();
    if text.len() > most || text.chars().any(char::is_control) {
        return Err(format!(
            "the reason '{}' is no line of at most {most} bytes",
            text.escape_debug()
        ));
    }
    Ok(text)
}

fn note_of(text: &str) -> kl_note {
    let mut note = kl_note::default();
    for (to, byte) in note.text.iter_mut().zip(text.bytes()) {
        *to = i8::from_ne_bytes([byte]);
    }
    note
}
