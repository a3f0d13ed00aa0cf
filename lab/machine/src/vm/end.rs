//! How a guest ended, and what it left behind.

use std::process::ExitStatus;

use super::budget::Spent;
use super::console::Console;
use super::qemu::LaunchMode;

/// How many lines of the console explain a failure.
const LAST_LINES: usize = 10;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It powered off or rebooted, and QEMU left with 0.
    PoweredOff,
    /// Its kernel panicked with this line.
    Panicked(String),
    /// It did not boot in time.
    NeverBooted {
        /// The time that it had.
        waited: Spent,
    },
    /// It had booted, and reported nothing more in time.
    Hung {
        /// The time that it had since its last frame.
        waited: Spent,
    },
    /// It reported, and had not done all in time.
    Late {
        /// The time that it had.
        had: Spent,
    },
    /// It neither computed nor ended.
    Still {
        /// For how long.
        waited: Spent,
    },
    /// It was ended because of what it sent.
    Refused(String),
    /// QEMU itself failed.
    Died {
        /// How it left.
        status: ExitStatus,
        /// What it printed.
        said: String,
    },
}

/// What a guest left behind. What it reported was handed on as it came.
#[derive(Debug, Clone)]
pub struct GuestEnd {
    /// The mode that it was started in, of several the one that came furthest.
    pub mode: LaunchMode,
    /// How it ended.
    pub how: ExitReason,
    /// How many frames it sent.
    pub frames: usize,
    /// Bytes on the second serial port that were part of no frame.
    pub noise: u64,
    /// What its kernel printed.
    pub console: Console,
}

impl GuestEnd {
    /// What went wrong, with the last lines of the console; none where the
    /// guest powered off.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mode = self.mode;
        let what = match &self.how {
            ExitReason::PoweredOff => return None,
            ExitReason::Panicked(line) => line.clone(),
            ExitReason::NeverBooted { waited } => format!("the guest ({mode}) did not boot in {waited}"),
            ExitReason::Hung { waited } => format!(
                "the guest ({mode}) reported nothing more in {waited}: its kernel hangs, or this machine is too \
                 slow for the scenario; --console DIR keeps all that the kernel printed"
            ),
            ExitReason::Late { had } => format!(
                "the guest ({mode}) had not done all in {had}; run fewer scenarios at once, or see with \
                 --console DIR what its kernel printed"
            ),
            ExitReason::Still { waited } => format!(
                "the guest ({mode}) used no processor time for {waited}: its kernel has halted, or QEMU was stopped"
            ),
            ExitReason::Refused(why) => format!("the guest ({mode}) was ended: {why}"),
            ExitReason::Died { status, said } => format!("QEMU ({mode}): {status}: {}", said.trim_end()),
        };
        Some(format!("{what}\n{}", self.last_lines()))
    }

    /// What explains its end: the last lines of the console.
    pub(super) fn last_lines(&self) -> String {
        let lines = match self.how {
            // What follows a panic is registers; what led to it comes before.
            ExitReason::Panicked(_) => self.console.lines_to_panic(LAST_LINES),
            _ => self.console.last_lines(LAST_LINES),
        };
        if lines.is_empty() { "(an empty console)".to_owned() } else { lines.join("\n") }
    }

    /// Whether another mode might do better: nothing was reported yet.
    pub(super) fn never_spoke(&self) -> bool {
        self.frames == 0 && !matches!(self.how, ExitReason::PoweredOff | ExitReason::Refused(_))
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
        let mut console = Console::default();
        console.push(b"one\r\ntwo\r\n");
        let waited = Spent { time: Duration::from_secs(9), measure: Measure::Processor };
        let mode = LaunchMode { board: Board::Microvm, accelerator: Accelerator::Tcg };
        let end = GuestEnd { mode, how: ExitReason::Hung { waited }, frames: 0, noise: 0, console };
        let failure = end.failure().unwrap();
        assert!(
            failure.starts_with("the guest (microvm) reported nothing more in 9 s of processor time: "),
            "{failure}"
        );
        assert!(
            failure.ends_with("; --console DIR keeps all that the kernel printed\none\ntwo"),
            "{failure}"
        );
    }
}
