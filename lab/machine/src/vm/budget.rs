//! The time limits of a guest, and the clocks that measure them.
//!
//! In virtual time a guest's clock counts instructions, so its budgets are QEMU's
//! processor time, which does not depend on how busy the machine is. The budgets of a
//! guest in real time are wall-clock time.
//!
//! Reading: clock_getcpuclockid(3); proc(5), /proc/PID/stat.

use std::fmt;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;
use tokio::time::Instant;

/// How long a guest in virtual time may use less than [`MOVED`] of processor time, in
/// wall-clock time. A working one never idles: when everything sleeps, QEMU jumps to
/// the next timer.
const STILL: Duration = Duration::from_secs(60);
/// The processor time that counts as progress: 1/240 of [`STILL`], less than a guest
/// gets beside 200 busy processes.
const MOVED: Duration = Duration::from_millis(250);
/// Less processor time than QEMU needs to boot a kernel. A process that has used less
/// may be idle for longer than [`STILL`]: it may be a script whose child is QEMU.
const BOOTS: Duration = Duration::from_secs(1);
/// How often to check the processor time.
const LOOK: Duration = Duration::from_secs(2);
/// A longer time between two checks means that this process was stopped, for example by
/// Ctrl-Z. That time does not count: QEMU may have been stopped too, or may have waited
/// for a reader of its output.
const STOPPED: Duration = Duration::from_secs(10);

/// The clock for a guest's budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// QEMU's processor time.
    Processor,
    /// The host's clock.
    Wall,
}

/// The time that a guest has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The amount.
    pub time: Duration,
    /// The clock that measured it.
    pub measure: Measure,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.time.as_secs())?;
        f.write_str(match self.measure {
            Measure::Processor => " of processor time",
            Measure::Wall => "",
        })
    }
}

/// The budgets of a guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    /// From one frame to the next.
    pub frame: Duration,
    /// In total.
    pub all: Duration,
}

/// Why a guest has run out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Its last frame was too long ago.
    Silent(Spent),
    /// It took too long in total.
    InAll(Spent),
    /// It neither uses the processor nor ends.
    Still(Spent),
}

/// Readings of both clocks at the same moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: Instant,
    processor: Duration,
}

/// Measures the time that one QEMU process takes.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Option<ClockId>,
    measure: Measure,
    begun: Reading,
    /// At the last frame.
    heard: Reading,
    /// When it last had used another [`MOVED`] of processor time.
    moved: Reading,
    /// At the last check.
    checked: Instant,
}

impl Watch {
    /// Watches a process that has just started.
    pub fn on(process: Option<u32>, measure: Measure) -> Self {
        let pid = process.and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let clock = pid.and_then(|pid| ClockId::pid_cpu_clock_id(pid).ok());
        let begun = Reading { wall: Instant::now(), processor: Duration::ZERO };
        Self { clock, measure, begun, heard: begun, moved: begun, checked: begun.wall }
    }

    /// Records that a frame has arrived.
    pub fn heard(&mut self) {
        self.heard = self.read();
        self.moved = self.heard;
    }

    /// Whether the guest is out of time, and why.
    pub fn over(&mut self, budgets: Budgets) -> Option<Over> {
        let now = self.read();
        self.over_at(now, budgets)
    }

    /// How long to wait before the next check.
    pub fn look_in(&self, budgets: Budgets) -> Duration {
        let left = budgets.frame.saturating_sub(self.since(self.heard, self.read()));
        left.clamp(Duration::from_millis(10), LOOK)
    }

    fn over_at(&mut self, now: Reading, budgets: Budgets) -> Option<Over> {
        self.leave_out_stops(now);
        let spent = |time| Spent { time, measure: self.measure };
        if self.since(self.heard, now) >= budgets.frame {
            return Some(Over::Silent(spent(budgets.frame)));
        }
        if self.since(self.begun, now) >= budgets.all {
            return Some(Over::InAll(spent(budgets.all)));
        }
        if self.measure == Measure::Wall || now.processor >= self.moved.processor + MOVED {
            self.moved = now;
        } else {
            let may_be_still = if now.processor < BOOTS { budgets.frame.max(STILL) } else { STILL };
            if now.wall - self.moved.wall >= may_be_still {
                return Some(Over::Still(Spent { time: may_be_still, measure: Measure::Wall }));
            }
        }
        None
    }

    fn leave_out_stops(&mut self, now: Reading) {
        let since = now.wall - self.checked;
        if since > STOPPED {
            for reading in [&mut self.begun, &mut self.heard, &mut self.moved] {
                // A frame may have arrived since the last check.
                reading.wall = (reading.wall + since).min(now.wall);
            }
        }
        self.checked = now.wall;
    }

    fn since(&self, then: Reading, now: Reading) -> Duration {
        match self.measure {
            Measure::Processor => now.processor.saturating_sub(then.processor),
            Measure::Wall => now.wall - then.wall,
        }
    }

    fn read(&self) -> Reading {
        // The clock of a process that has ended cannot be read.
        let processor = self.clock.and_then(|clock| clock.now().ok()).map(Duration::from);
        Reading { wall: Instant::now(), processor: processor.unwrap_or(self.moved.processor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGETS: Budgets = Budgets { frame: Duration::from_secs(900), all: Duration::from_secs(2000) };

    /// A watch, and readings of it a number of seconds after its start.
    fn watch(measure: Measure) -> (Watch, impl Fn(u64, u64) -> Reading) {
        let watch = Watch::on(None, measure);
        let begun = watch.begun;
        let at = move |wall, processor| Reading {
            wall: begun.wall + Duration::from_secs(wall),
            processor: Duration::from_secs(processor),
        };
        (watch, at)
    }

    #[test]
    fn a_guest_that_waits_for_the_processor_is_not_silent() {
        let (mut watch, at) = watch(Measure::Processor);
        // Beside 24 others, for as long as 400 s on an idle machine take.
        for minute in 0..=160 {
            assert_eq!(watch.over_at(at(minute * 60, minute * 60 / 24), BUDGETS), None, "{minute}");
        }
    }

    #[test]
    fn a_guest_that_computes_without_end_is_silent() {
        let (mut watch, at) = watch(Measure::Processor);
        assert_eq!(watch.over_at(at(899, 899), BUDGETS), None);
        let spent = Spent { time: BUDGETS.frame, measure: Measure::Processor };
        assert_eq!(watch.over_at(at(900, 900), BUDGETS), Some(Over::Silent(spent)));
    }

    /// The seconds in which a guest that uses no processor time is found still, if it is
    /// checked every second from the first on.
    fn still_after(watch: &mut Watch, at: impl Fn(u64, u64) -> Reading, first: u64, processor: u64) -> u64 {
        let still = |second: &u64| {
            let over = watch.over_at(at(*second, processor), BUDGETS);
            assert!(matches!(over, None | Some(Over::Still(_))), "{over:?}");
            over.is_some()
        };
        (first..3000).find(still).expect("it is still some time")
    }

    #[test]
    fn a_guest_that_does_nothing_is_still() {
        let (mut watch, at) = watch(Measure::Processor);
        assert_eq!(still_after(&mut watch, at, 9, 5), 69);
    }

    #[test]
    fn a_guest_that_was_stopped_with_the_lab_is_not_still() {
        let (mut watch, at) = watch(Measure::Processor);
        assert_eq!(watch.over_at(at(9, 5), BUDGETS), None);
        // Ctrl-Z, lunch, `fg`.
        assert_eq!(watch.over_at(at(2009, 5), BUDGETS), None);
        assert_eq!(still_after(&mut watch, at, 2010, 5), 2069);
    }

    #[test]
    fn lunch_is_not_in_the_budget_of_a_guest_on_the_wall_clock() {
        let (mut watch, at) = watch(Measure::Wall);
        assert_eq!(watch.over_at(at(9, 5), BUDGETS), None);
        assert_eq!(watch.over_at(at(5000, 5), BUDGETS), None);
        assert_eq!(watch.over_at(at(5009, 5), BUDGETS), None);
    }

    #[test]
    fn a_script_that_starts_qemu_is_not_still() {
        let (mut watch, at) = watch(Measure::Processor);
        assert_eq!(still_after(&mut watch, at, 1, 0), 900);
    }

    #[test]
    fn frames_do_not_extend_the_budget_for_all() {
        for measure in [Measure::Processor, Measure::Wall] {
            let (mut watch, at) = watch(measure);
            for second in 0..2000 {
                assert_eq!(watch.over_at(at(second, second), BUDGETS), None);
                watch.heard = at(second, second);
            }
            assert!(matches!(watch.over_at(at(2000, 2000), BUDGETS), Some(Over::InAll(_))));
        }
    }

    #[test]
    fn the_processor_time_is_that_of_the_process() {
        let watch = Watch::on(Some(std::process::id()), Measure::Processor);
        let begun = watch.read().processor;
        assert!(begun > Duration::ZERO);
        let mut now = begun;
        while now == begun {
            now = watch.read().processor;
        }
        assert!(now > begun);
    }
}
