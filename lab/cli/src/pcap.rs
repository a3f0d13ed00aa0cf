//! `--pcap`: writes captures, one pcapng file per arm.

use std::io;
use std::path::Path;

use super::files::{self, Folder};
use faultlab_model::outcome::Outcome;
use faultlab_report::pcapng;
use faultlab_report::pcapng::Frames;

/// The file name of an arm's capture: `SCENARIO.ARM.pcapng`, with the prefix `KERNEL.` if the
/// kernel was requested by an id.
pub(super) fn file(outcome: &Outcome, arm: &str) -> String {
    let kernel = outcome.kernel_id.as_ref().map(|id| files::name(id) + ".").unwrap_or_default();
    format!("{kernel}{}.{}.pcapng", files::name(&outcome.scenario), files::name(arm))
}

/// Writes the selected frames of an outcome's captures into a directory.
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
