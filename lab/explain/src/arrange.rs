//! Prepares a recording for an explanation.

use std::mem;

use faultlab_model::recording::Recording;

use crate::{carried, dropped};

/// Sorts the captured frames by time, and marks each with what the kernel and the
/// wires did with it.
///
/// This takes long for a large capture, so it runs after the last arm has ended.
pub fn arrange(recording: &mut Recording) {
    recording.capture.sort();
    dropped::join(recording);
    for wire in &mut recording.wires {
        let records = mem::take(&mut wire.records);
        if let Some([here, there]) = &wire.interfaces {
            let [one, other] = &wire.ends;
            carried::mark(&mut recording.capture, [(one, here), (other, there)], &records);
        }
    }
}
