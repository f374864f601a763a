//! A thread of the library, started when it is first needed.

use std::io;
use std::thread::{Builder, Thread};

use crate::sync::OnceLock;
use crate::sync::plain::{Mutex, lock};

/// If the start fails, because the system has no thread left, it is tried again when the thread is
/// needed next.
#[derive(Default)]
pub(crate) struct OnDemand {
    thread: OnceLock<Thread>,
    /// Held while the thread is started.
    starting: Mutex<()>,
}

impl OnDemand {
    /// The thread, if it was started.
    pub(crate) fn get(&self) -> Option<&Thread> {
        self.thread.get()
    }

    /// Returns the thread, and starts it if it does not run yet.
    pub(crate) fn get_or_start(
        &self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Option<&Thread> {
        self.start(|| {
            let thread = Builder::new().name(name.to_owned()).spawn(run)?;
            Ok(thread.thread().clone())
        })
    }

    fn start(&self, start: impl FnOnce() -> io::Result<Thread>) -> Option<&Thread> {
        if self.thread.get().is_none() {
            let _starting = lock(&self.starting);
            if self.thread.get().is_none() {
                let _ = self.thread.set(start().ok()?);
            }
        }
        self.thread.get()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::WouldBlock;

    use super::OnDemand;

    #[test]
    fn a_start_that_fails_is_tried_again() {
        let thread = OnDemand::default();
        assert!(thread.start(|| Err(WouldBlock.into())).is_none());
        assert!(thread.get().is_none());
        let started = thread.get_or_start("a thread", || {});
        assert_eq!(started.and_then(|thread| thread.name()), Some("a thread"));
        let again = thread.start(|| panic!("started twice"));
        assert_eq!(
            again.map(|thread| thread.id()),
            started.map(|thread| thread.id())
        );
    }
}
