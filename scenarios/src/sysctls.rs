//! The kernel's own numbers, which decide when it gives up.

use lab::prelude::*;
use lab::wire::all as wires;

/// A sysctl of a host, as a number; `None` if its kernel has none of that name.
///
/// In a guest, reading a file takes milliseconds: the wires carry in between.
/// [`sysctl::get`] would look for the reason why a key is missing, which takes
/// much longer.
pub fn number(host: &Host, key: &str) -> Option<u64> {
    let exists = sysctl::exists(host.namespace(), key).unwrap_or(false);
    wires::carry();
    let text = exists.then(|| sysctl::get(host.namespace(), key).ok()).flatten();
    wires::carry();
    text.and_then(|text| text.parse().ok())
}
