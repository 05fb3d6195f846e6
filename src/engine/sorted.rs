//! Values by source, in one vector in the order that samples come in.
//!
//! A tick merges it with a window: linear, in memory order, and unlike a hash table it gives
//! senders, who choose their addresses, nothing to collide in.

use std::mem;

use crate::model::Source;
use crate::telemetry::{Key, Order};

/// Entries that room is kept for, however quiet it gets.
pub(super) const LEAST_ROOM: usize = 1024;

#[derive(Debug)]
pub(super) struct Sorted<T> {
    order: Order,
    items: Vec<(Key, T)>,
    /// Where a pass is; everything before has been seen.
    cursor: usize,
    /// Came up in this pass, in order; not in `items` before it ends.
    new: Vec<(Key, T)>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self::in_order(Order::BY_SOURCE)
    }
}

impl<T> Sorted<T> {
    pub(super) fn in_order(order: Order) -> Self {
        Self {
            order,
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
        self.items.iter().map(|(key, value)| (&key.source, value))
    }

    pub(super) fn get(&self, source: &Source) -> Option<&T> {
        let at = self.find(source).ok()?;
        self.items.get(at).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, source: &Source) -> Option<&mut T> {
        let at = self.find(source).ok()?;
        self.items.get_mut(at).map(|(_, value)| value)
    }

    /// Removes these, which are sorted, outside a pass.
    pub(super) fn remove(&mut self, gone: &[Source]) {
        if !gone.is_empty() {
            self.items
                .retain(|(key, _)| gone.binary_search(&key.source).is_err());
        }
    }

    fn find(&self, source: &Source) -> Result<usize, usize> {
        let key = self.order.key(*source);
        self.items.binary_search_by(|(known, _)| known.cmp(&key))
    }

    /// Adds values that are not there yet, outside a pass.
    pub(super) fn extend(&mut self, new: impl IntoIterator<Item = (Source, T)>) {
        let order = self.order;
        let keyed = |(source, value)| (order.key(source), value);
        self.items.extend(new.into_iter().map(keyed));
        self.items.sort_by_key(|(key, _)| *key);
    }

    /// Adds a value outside a pass; false if there is one already.
    pub(super) fn put(&mut self, source: Source, value: T) -> bool {
        let place = self.find(&source);
        if let Err(at) = place {
            self.items.insert(at, (self.order.key(source), value));
        }
        place.is_err()
    }

    /// The next value of this pass before `key`; before the end if that is `None`.
    #[inline]
    pub(super) fn next_before(&mut self, key: Option<&Key>) -> Option<(Source, &mut T)> {
        let (next, value) = self.items.get_mut(self.cursor)?;
        if key.is_some_and(|key| *next >= *key) {
            return None;
        }
        self.cursor += 1;
        Some((next.source, value))
    }

    /// Whether a value of `key` comes next.
    #[inline]
    pub(super) fn is_at(&self, key: &Key) -> bool {
        let next = self.items.get(self.cursor);
        next.is_some_and(|(next, _)| next == key)
    }

    /// The value of `key`, which the pass has then seen; all before it are passed over.
    #[inline]
    pub(super) fn pass_to(&mut self, key: &Key) -> Option<&mut T> {
        while self.next_before(Some(key)).is_some() {}
        let (_, value) = self
            .items
            .get_mut(self.cursor)
            .filter(|(found, _)| found == key)?;
        self.cursor += 1;
        Some(value)
    }

    /// Takes in a value where the pass is; keys must come in order. `most` may come in a pass.
    pub(super) fn insert(&mut self, key: Key, value: T, most: usize) {
        push(&mut self.new, (key, value), most);
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
