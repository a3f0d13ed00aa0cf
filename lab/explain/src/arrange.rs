//! A recording, made ready for an explanation.

use std::mem;

use faultlab_model::recording::Recording;

use crate::{carried, dropped};

/// Sorts what was captured by time, and marks its frames with what the kernel and
/// the wires did with them.
///
/// That takes long where there are many frames: it is for when no arm plays any
/// more.
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
