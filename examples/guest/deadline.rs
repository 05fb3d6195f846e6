use std::time::{Duration, Instant};

/// A moment after which waiting is given up.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(span: Duration) -> Self {
        Self(now() + span)
    }

    pub(crate) fn is_over(self) -> bool {
        now() >= self.0
    }

    /// How long it has been over.
    pub(crate) fn since(self) -> Duration {
        now().saturating_duration_since(self.0)
    }
}

#[expect(clippy::disallowed_methods, reason = "a guest waits for real events")]
fn now() -> Instant {
    Instant::now()
}
