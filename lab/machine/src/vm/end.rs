//! How a guest ended, and its output.

use std::process::ExitStatus;

use super::budget::Spent;
use super::console::Console;
use super::qemu::LaunchMode;

/// The number of console lines in an error message.
const LAST_LINES: usize = 10;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It powered off or rebooted, and QEMU exited with 0.
    PoweredOff,
    /// Its kernel panicked with this line.
    Panicked(String),
    /// It did not boot in time.
    NeverBooted {
        /// The time allowed.
        waited: Spent,
    },
    /// It booted, but sent no further report in time.
    Hung {
        /// The time since its last frame.
        waited: Spent,
    },
    /// It sent reports, but did not complete its tasks in time.
    Late {
        /// The time allowed.
        had: Spent,
    },
    /// It neither used the processor nor ended.
    Still {
        /// For how long.
        waited: Spent,
    },
    /// It was ended because it sent an invalid report; why that was refused.
    Refused(String),
    /// It was ended because the lab was asked to end.
    Interrupted,
    /// QEMU itself failed.
    Died {
        /// Its exit status.
        status: ExitStatus,
        /// Its output.
        said: String,
    },
}

/// The end of a guest. Its reports were passed on as they arrived.
#[derive(Debug, Clone)]
pub struct GuestEnd {
    /// The mode that it was started in. If it booted in none, the first mode in which
    /// its kernel printed something, otherwise the first.
    pub mode: LaunchMode,
    /// How it ended.
    pub how: ExitReason,
    /// The number of frames it sent.
    pub frames: usize,
    /// Bytes on the second serial port that did not belong to a frame.
    pub noise: u64,
    /// The output of its kernel.
    pub console: Console,
}

impl GuestEnd {
    /// What went wrong, with the last lines of the console; `None` if the guest
    /// powered off.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mode = self.mode;
        let what = match &self.how {
            ExitReason::PoweredOff => return None,
            ExitReason::Panicked(line) => line.clone(),
            ExitReason::NeverBooted { waited } => format!(
                "the guest ({mode}) did not boot in {waited}; the last lines of its console follow, and \
                 `run --console DIR` keeps all of them"
            ),
            ExitReason::Hung { waited } => format!(
                "the guest ({mode}) reported nothing more in {waited}: its kernel hangs, or the scenario takes \
                 this machine too long; run it with fewer arms (--arm), or see with `run --console DIR` what the \
                 kernel printed"
            ),
            ExitReason::Late { had } => format!(
                "the guest ({mode}) had not done all in {had}; run fewer scenarios at once, or see with \
                 `run --console DIR` what its kernel printed"
            ),
            ExitReason::Still { waited } => format!(
                "the guest ({mode}) used no processor time for {waited}: its kernel has halted, which \
                 `run --console DIR` shows, or QEMU was stopped; then run it again"
            ),
            ExitReason::Refused(why) => format!("the guest ({mode}) was ended: {why}"),
            ExitReason::Interrupted => format!("the guest ({mode}) was interrupted"),
            ExitReason::Died { status, said } => format!("QEMU ({mode}): {status}: {}", said.trim_end()),
        };
        Some(format!("{what}\n{}", self.last_lines()))
    }

    /// The last lines of the console, or those before a panic.
    pub(super) fn last_lines(&self) -> String {
        let lines = match self.how {
            // A panic is followed by registers; the cause comes before it.
            ExitReason::Panicked(_) => self.console.lines_to_panic(LAST_LINES),
            _ => self.console.last_lines(LAST_LINES),
        };
        if lines.is_empty() { "(an empty console)".to_owned() } else { lines.join("\n") }
    }

    /// Whether to try another mode: the guest has sent no frame.
    pub(super) fn never_spoke(&self) -> bool {
        self.frames == 0
            && !matches!(self.how, ExitReason::PoweredOff | ExitReason::Refused(_) | ExitReason::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::budget::Measure;
    use super::super::qemu::{Accelerator, Board};
    use super::*;

    #[test]
    fn a_failure_says_what_to_do_and_ends_with_the_consoles_last_lines() {
        let waited = Spent { time: Duration::from_secs(9), measure: Measure::Processor };
        let mode = LaunchMode { board: Board::Microvm, accelerator: Accelerator::Tcg };
        for (how, what) in [
            (ExitReason::NeverBooted { waited }, "did not boot in 9 s of processor time; "),
            (ExitReason::Hung { waited }, "reported nothing more in 9 s of processor time: "),
            (ExitReason::Late { had: waited }, "had not done all in 9 s of processor time; "),
            (ExitReason::Still { waited }, "used no processor time for 9 s of processor time: "),
        ] {
            let mut console = Console::default();
            console.push(b"one\r\ntwo\r\n");
            let failure = GuestEnd { mode, how, frames: 0, noise: 0, console }.failure().unwrap();
            assert!(failure.starts_with(&format!("the guest (microvm) {what}")), "{failure}");
            assert!(failure.contains("--console DIR") && failure.ends_with("\none\ntwo"), "{failure}");
        }
    }
}
