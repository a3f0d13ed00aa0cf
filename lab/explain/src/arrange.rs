//! A recording, made ready for an explanation.

use std::mem;

use faultlab_model::recording::Traces;

use crate::{carried, dropped};

/// Sorts what was captured by time, and marks its frames with what the kernel and
/// the wires did with them.
///
/// That takes long where there are many frames: it is for when no arm plays any
/// more.
pub fn arrange(traces: &mut Traces) {
    traces.capture.sort();
    let drops = traces.hosts.iter().map(|host| (host.name.as_str(), host.drops.as_slice()));
    dropped::frames(&mut traces.capture, traces.begun, drops);
    for wire in &mut traces.wires {
        let records = mem::take(&mut wire.records);
        if let Some([here, there]) = &wire.interfaces {
            let [one, other] = &wire.ends;
            carried::mark(&mut traces.capture, [(one, here), (other, there)], &records);
        }
    }
}
