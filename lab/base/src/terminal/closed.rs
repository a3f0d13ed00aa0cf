//! Whether standard output was closed when the program was started.
//!
//! Rust's runtime opens /dev/null in place of a closed standard descriptor. From then
//! on the descriptor looks the same as a /dev/null that the parent process opened,
//! so this check runs before the runtime does.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed.
pub(super) fn standard_output() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: F_GETFD takes no argument and changes nothing; a descriptor that is
    // not open is EBADF.
    #[allow(unsafe_code, reason = "the descriptor may be closed: nothing owns or borrows it")]
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags < 0, Ordering::Relaxed);
}

/// System V ABI: the C library calls the functions in this section, in link
/// order, before `main`.
// SAFETY: the section holds pointers to functions of the C calling convention. This
// one needs neither its arguments nor Rust's runtime.
#[allow(unsafe_code, reason = "there is no other code of this program before `main`")]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
