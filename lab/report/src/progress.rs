//! A progress display for terminals.
//!
//! Progress is data; this is one of its readers. It writes to standard error only
//! if that is a terminal.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use faultlab_base::{locale, text};

/// A progress event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The machine is being checked.
    Checking,
    /// The check has ended.
    CheckingEnded,
    /// This takes time.
    Waiting(&'a str),
    /// What took time has ended.
    WaitingEnded(&'a str),
    /// A scenario has begun, or the scenarios of a kernel have.
    Begun {
        /// The scenario's or the kernel's name.
        name: &'a str,
        /// What it consists of.
        parts: Parts,
    },
    /// A part of it has ended.
    PartEnded {
        /// The scenario's or the kernel's name.
        of: &'a str,
        /// The part's.
        part: &'a str,
    },
    /// All of it has ended.
    Ended(&'a str),
}

/// The unit of progress.
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

/// The style of a progress bar, in the letters of the locale.
///
/// # Panics
/// If the template is none.
#[must_use]
pub fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the template is right");
    if locale::is_utf8() { style } else { style.tick_chars("-\\|/ ").progress_chars("=>-") }
}

/// Shows progress at a terminal, or nothing.
#[derive(Debug)]
pub struct Display {
    bars: MultiProgress,
    shown: bool,
    running: HashMap<String, ProgressBar>,
}

const CHECKING: &str = "trying what this machine can do";

impl Display {
    /// Shows progress on standard error where `shown`.
    #[must_use]
    pub fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), shown, running: HashMap::new() }
    }

    /// Records an event.
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

    /// Runs `print` with the bars out of the way.
    pub fn print(&self, print: impl FnOnce()) {
        self.bars.suspend(print);
    }
}
