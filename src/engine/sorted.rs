//! Values by source, in one sorted vector.
//!
//! A tick merges it with a sorted window: linear, in memory order, and unlike a hash table it
//! gives senders, who choose their addresses, nothing to collide in.

use std::mem;

use crate::model::Source;

/// Entries that room is kept for, however quiet it gets.
pub(super) const LEAST_ROOM: usize = 1024;

#[derive(Debug)]
pub(super) struct Sorted<T> {
    items: Vec<(Source, T)>,
    /// Where a pass is; everything before has been seen.
    cursor: usize,
    /// Came up in this pass, in order; not in `items` before it ends.
    new: Vec<(Source, T)>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            cursor: 0,
            new: Vec::new(),
        }
    }
}

impl<T: Copy> Sorted<T> {
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.new.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Source, &T)> {
        self.items.iter().map(|(source, value)| (source, value))
    }

    pub(super) fn get(&self, source: &Source) -> Option<&T> {
        let at = self.find(source).ok()?;
        self.items.get(at).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, source: &Source) -> Option<&mut T> {
        let at = self.find(source).ok()?;
        self.items.get_mut(at).map(|(_, value)| value)
    }

    /// Removes these, which are in order, outside a pass.
    pub(super) fn remove(&mut self, gone: &[Source]) {
        if !gone.is_empty() {
            self.items
                .retain(|(source, _)| gone.binary_search(source).is_err());
        }
    }

    fn find(&self, source: &Source) -> Result<usize, usize> {
        self.items.binary_search_by(|(known, _)| known.cmp(source))
    }

    /// Adds values that are not there yet, outside a pass.
    pub(super) fn extend(&mut self, new: impl IntoIterator<Item = (Source, T)>) {
        self.items.extend(new);
        self.items.sort_by_key(|(source, _)| *source);
    }

    /// Adds a value outside a pass; false if there is one already.
    pub(super) fn put(&mut self, source: Source, value: T) -> bool {
        let place = self.find(&source);
        if let Err(at) = place {
            self.items.insert(at, (source, value));
        }
        place.is_err()
    }

    /// The next value of this pass before `source`; before the end if that is `None`.
    #[inline]
    pub(super) fn next_before(&mut self, source: Option<&Source>) -> Option<&mut (Source, T)> {
        let next = self.items.get_mut(self.cursor)?;
        if source.is_some_and(|source| next.0 >= *source) {
            return None;
        }
        self.cursor += 1;
        Some(next)
    }

    /// Whether a value of `source` comes next.
    #[inline]
    pub(super) fn is_at(&self, source: &Source) -> bool {
        let next = self.items.get(self.cursor);
        next.is_some_and(|(next, _)| next == source)
    }

    /// The value of `source`, which the pass has then seen; all before it are passed over.
    #[inline]
    pub(super) fn pass_to(&mut self, source: &Source) -> Option<&mut T> {
        while self.next_before(Some(source)).is_some() {}
        let (_, value) = self
            .items
            .get_mut(self.cursor)
            .filter(|(found, _)| found == source)?;
        self.cursor += 1;
        Some(value)
    }

    /// Takes in a value where the pass is; sources must come in order. `most` may come in a pass.
    pub(super) fn insert(&mut self, source: Source, value: T, most: usize) {
        push(&mut self.new, (source, value), most);
    }

    /// Ends a pass: keeps what `keep` says and lets go of memory that a past attack took.
    pub(super) fn end_pass(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.cursor = 0;
        self.items.retain(|(_, value)| keep(value));
        self.merge_new();
        fit(&mut self.items);
        fit(&mut self.new);
    }

    /// Merges from the back, so that nothing is held twice.
    fn merge_new(&mut self) {
        if self.items.is_empty() {
            mem::swap(&mut self.items, &mut self.new);
            return;
        }
        let mut left = self.items.len();
        self.items.extend_from_slice(&self.new);
        let mut free = self.items.len();
        while let Some(next) = self.new.last().copied() {
            free -= 1;
            match left.checked_sub(1).map(|at| self.items[at]) {
                Some(known) if known.0 > next.0 => {
                    self.items[free] = known;
                    left -= 1;
                }
                _ => {
                    self.items[free] = next;
                    self.new.pop();
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.items.capacity() + self.new.capacity()
    }
}

/// Appends to a buffer that `most` may come into. When it holds more than a few, room for all is
/// reserved at once: what is reserved takes no memory before it is used, and nothing moves then.
pub(super) fn push<T>(buffer: &mut Vec<T>, value: T, most: usize) {
    let len = buffer.len();
    if len == buffer.capacity() && len >= LEAST_ROOM {
        buffer.reserve_exact(most.saturating_sub(len).max(len));
    }
    buffer.push(value);
}

/// Shrinks a buffer of which less than an eighth is used.
fn fit<T>(buffer: &mut Vec<T>) {
    let room = buffer.len().saturating_mul(2).max(LEAST_ROOM);
    if buffer.capacity() / 4 > room {
        buffer.shrink_to(room);
    }
}
