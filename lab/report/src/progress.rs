//! What is under way, for a person at a terminal.
//!
//! Progress is data; this is one reader of it, and it writes to standard
//! error only where that is a terminal.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use faultlab_base::text;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The machine is being tried out.
    Checking,
    /// It has been.
    CheckingEnded,
    /// A scenario has begun.
    Begun {
        /// Its name.
        scenario: &'a str,
        /// How many arms it has.
        arms: usize,
    },
    /// An arm of it has ended.
    Arm {
        /// The scenario's name.
        scenario: &'a str,
        /// The arm's.
        arm: &'a str,
    },
    /// A scenario has ended.
    Ended(&'a str),
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

    /// Takes note of what has happened.
    pub fn note(&mut self, progress: &Progress<'_>) {
        if !self.shown {
            return;
        }
        match progress {
            Progress::Checking => self.begin(CHECKING, 0),
            Progress::Begun { scenario, arms } => self.begin(scenario, *arms),
            Progress::Arm { scenario, arm } => {
                if let Some(bar) = self.running.get(*scenario) {
                    bar.inc(1);
                    bar.set_message(format!("{} has ended", text::line(arm)));
                }
            }
            Progress::CheckingEnded => self.end(CHECKING),
            Progress::Ended(name) => self.end(name),
        }
    }

    fn end(&mut self, name: &str) {
        if let Some(bar) = self.running.remove(name) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn begin(&mut self, name: &str, arms: usize) {
        let template = match arms {
            0 => "{spinner} {prefix}",
            _ => "{spinner} {prefix}  {pos}/{len} arms  {elapsed}  {msg}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is right");
        let bar = self
            .bars
            .add(ProgressBar::new(arms as u64).with_style(style).with_prefix(text::line(name).into_owned()));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(name.to_owned(), bar);
    }

    /// Runs `print` with the bars out of the way.
    pub fn print(&self, print: impl FnOnce()) {
        self.bars.suspend(print);
    }
}
