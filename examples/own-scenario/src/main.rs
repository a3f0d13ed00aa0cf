//! One scenario, with faultlab's whole command line:
//!
//! ```console
//! $ cargo run -- show ttl-too-small
//! $ cargo run -- run
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::cli::main(&own_scenario::CATALOGUE)
}
