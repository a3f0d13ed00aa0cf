//! One scenario with the whole of faultlab's command line around it:
//!
//! ```console
//! $ cargo run -- show mtu-black-hole
//! $ cargo run -- run
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::cli::main(&own_scenario::CATALOGUE)
}
