//! Writing to a terminal from a background process group.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// Calls `act` with SIGTTOU blocked, with which the kernel would stop a background
/// process that writes to its terminal or changes it.
pub(super) fn from_background<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let before = stop.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = act();
    before.thread_set_mask()?;
    done
}
