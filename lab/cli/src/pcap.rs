//! Captures, a file for each arm.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use faultlab_model::outcome::Outcome;
use faultlab_report::pcapng;

/// The file of an arm: `SCENARIO.ARM.pcapng`, after the kernel's name where it
/// has one.
pub(super) fn file(outcome: &Outcome, arm: &str) -> String {
    // An id may be a path.
    let kernel = outcome.kernel_id.as_ref().map(|id| id.replace('/', "_") + ".").unwrap_or_default();
    format!("{kernel}{}.{arm}.pcapng", outcome.scenario)
}

/// Writes the captures of an outcome into a directory.
///
/// # Errors
/// Where a file cannot be written; names it.
pub(super) fn write(outcome: &Outcome, folder: &Path) -> io::Result<()> {
    for arm in &outcome.arms {
        let Some(capture) = &arm.capture else { continue };
        let file = folder.join(file(outcome, &arm.name));
        let about =
            format!("{}, {} arm, Linux {}: {}", outcome.scenario, arm.name, outcome.kernel, arm.change);
        let written = fs::create_dir_all(folder).and_then(|()| {
            let mut out = BufWriter::new(File::create(&file)?);
            pcapng::write(capture, &about, &mut out)?;
            out.flush()
        });
        written.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
    }
    Ok(())
}
