//! The commands `hint`, `check` and `solution` of a shell beside a played arm: this program,
//! run under their names.

use std::process::ExitCode;

use clap::Parser;

use super::Stop;
use faultlab_base::terminal;
use faultlab_machine::commands::{ShellCommand, ask};
use faultlab_report::Style;

/// A command of the shell of `faultlab shell SCENARIO`.
#[derive(Debug, Parser)]
#[command(multicall = true, max_term_width = 100)]
enum Command {
    /// Tell the next hint: where to look, the family of the fault, the kernel function that decides, the
    /// cause, what people try against it
    Hint,
    /// Play the probes again on the network as it now is, with everything that you changed, and say whether
    /// the symptom is gone
    ///
    /// The probes' own sockets and the conntrack entries of earlier flows are gone before they begin. Exits
    /// with 0 where the symptom is gone, with 1 where it is there, and with 69 where the probes cannot be played.
    Check,
    /// Tell why it happens and what cures it
    Solution,
}

pub(super) fn run(style: Style) -> Result<ExitCode, Stop> {
    let command = match Command::parse() {
        Command::Hint => ShellCommand::Hint,
        Command::Check => ShellCommand::Check,
        Command::Solution => ShellCommand::Solution,
    };
    let tell = |text: &str| Ok::<_, Stop>(terminal::print(text)?);
    Ok(ExitCode::from(ask(command, style, tell)?))
}
