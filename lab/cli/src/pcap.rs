//! Writes captures, one file per arm.

use std::io;
use std::path::Path;

use super::files::{self, Folder};
use faultlab_model::outcome::Outcome;
use faultlab_report::pcapng;
use faultlab_report::pcapng::Frames;

/// The file name of an arm: `SCENARIO.ARM.pcapng`, prefixed with the kernel's name
/// if it has one.
pub(super) fn file(outcome: &Outcome, arm: &str) -> String {
    let kernel = outcome.kernel_id.as_ref().map(|id| files::name(id) + ".").unwrap_or_default();
    format!("{kernel}{}.{}.pcapng", files::name(&outcome.scenario), files::name(arm))
}

/// Writes these frames of the captures of an outcome into a directory.
///
/// # Errors
/// If a file cannot be written. The error names it.
pub(super) fn write(outcome: &Outcome, frames: Frames, folder: &Path) -> io::Result<()> {
    for arm in &outcome.arms {
        let Some(capture) = &arm.capture else { continue };
        let about =
            format!("{}, {} arm, Linux {}: {}", outcome.scenario, arm.name, outcome.kernel, arm.change);
        Folder::make(folder)?
            .write(&file(outcome, &arm.name), |out| pcapng::write(capture, frames, &about, out))?;
    }
    Ok(())
}
