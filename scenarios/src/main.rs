//! `faultlab`: the catalogue on the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::cli::main(&scenarios::CATALOGUE)
}
