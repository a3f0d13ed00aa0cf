//! Progress events, and their display on a terminal.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use faultlab_base::{locale, text};

/// A progress event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The check of the machine's abilities has begun.
    Checking,
    /// The check has ended.
    CheckingEnded,
    /// A step without parts has begun, such as a boot: its description.
    Waiting(&'a str),
    /// That step has ended.
    WaitingEnded(&'a str),
    /// A scenario, or the run of scenarios on a kernel, has begun.
    Begun {
        /// The scenario's or the kernel's name.
        name: &'a str,
        /// The number of its parts.
        parts: Parts,
    },
    /// A part has ended: an arm of a scenario, or a scenario on a kernel.
    PartEnded {
        /// The scenario's or the kernel's name.
        of: &'a str,
        /// The name of the arm or the scenario that ended.
        part: &'a str,
    },
    /// The scenario, or the run on the kernel, has ended.
    Ended(&'a str),
}

/// The parts of a step, which its progress bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The number of arms of a scenario.
    Arms(usize),
    /// The number of scenarios on a kernel.
    Scenarios(usize),
}

impl Parts {
    fn number(self) -> usize {
        match self {
            Self::Arms(number) | Self::Scenarios(number) => number,
        }
    }

    /// The template of a progress bar.
    fn template(self) -> &'static str {
        match self {
            Self::Arms(_) => "{spinner} {prefix}  {pos}/{len} arms  {elapsed}  {msg}",
            Self::Scenarios(_) => "{spinner} {prefix}  {pos}/{len} scenarios  {elapsed}  {msg}",
        }
    }
}

/// The style of a progress bar, in ASCII unless the locale is UTF-8.
///
/// # Panics
/// If the template is invalid.
#[must_use]
pub fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the template is right");
    if locale::is_utf8() { style } else { style.tick_chars("-\\|/ ").progress_chars("=>-") }
}

/// Displays progress on standard error.
#[derive(Debug)]
pub struct Display {
    bars: MultiProgress,
    shown: bool,
    running: HashMap<String, ProgressBar>,
}

const CHECKING: &str = "trying what this machine can do";

impl Display {
    /// A display that shows nothing unless `shown`.
    #[must_use]
    pub fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), shown, running: HashMap::new() }
    }

    /// Handles an event.
    pub fn note(&mut self, progress: &Progress<'_>) {
        if !self.shown {
            return;
        }
        match progress {
            Progress::Checking => self.begin(CHECKING, "{spinner} {prefix}", 0),
            Progress::Waiting(what) => self.begin(what, "{spinner} {prefix}  {elapsed}", 0),
            Progress::Begun { name, parts } => self.begin(name, parts.template(), parts.number()),
            Progress::PartEnded { of, part } => {
                if let Some(bar) = self.running.get(*of) {
                    bar.inc(1);
                    bar.set_message(format!("{} has ended", text::line(part)));
                }
            }
            Progress::CheckingEnded => self.end(CHECKING),
            Progress::WaitingEnded(name) | Progress::Ended(name) => self.end(name),
        }
    }

    fn end(&mut self, name: &str) {
        if let Some(bar) = self.running.remove(name) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn begin(&mut self, name: &str, template: &str, number: usize) {
        let bar = ProgressBar::new(number as u64).with_style(style(template));
        let bar = bar.with_prefix(text::line(name).into_owned());
        let bar = self.bars.add(bar);
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(name.to_owned(), bar);
    }

    /// Hides the progress bars while `print` writes to the terminal.
    pub fn print(&self, print: impl FnOnce()) {
        self.bars.suspend(print);
    }
}
