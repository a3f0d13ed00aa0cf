//! Captures, a file for each arm.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::outcome::Outcome;
use crate::report::pcapng;

/// Writes the captures of an outcome into a directory, and takes them out of
/// it: `SCENARIO.ARM.pcapng`, after the kernel's name where it has one.
///
/// # Errors
/// Where a file cannot be written; names it.
pub(super) fn write(outcome: &mut Outcome, folder: &Path) -> io::Result<()> {
    for arm in &mut outcome.arms {
        let Some(capture) = arm.capture.take() else { continue };
        // An id may be a path.
        let kernel = outcome.kernel_id.as_ref().map(|id| id.replace('/', "_") + ".").unwrap_or_default();
        let file = folder.join(format!("{kernel}{}.{}.pcapng", outcome.scenario, arm.name));
        let about =
            format!("{}, {} arm, Linux {}: {}", outcome.scenario, arm.name, outcome.kernel, arm.change);
        let written = fs::create_dir_all(folder).and_then(|()| {
            let mut out = BufWriter::new(File::create(&file)?);
            pcapng::write(&capture, &about, &mut out)?;
            out.flush()
        });
        written.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
    }
    Ok(())
}
