//! Wired links, and the rings that their frames are read from.

use std::rc::Weak;

use super::host::Host;
use crate::namespace::Namespace;
use crate::packet::offload;
use crate::packet::ring::{self, Ring};
use crate::wire::Wire;
use faultlab_base::error::Result;

/// A link whose frames wait for a [`Wire`].
#[derive(Debug)]
pub(super) struct Wired {
    pub(super) nodes: [usize; 2],
    pub(super) interfaces: [String; 2],
    /// The rings that the frames are read from, until a wire takes them.
    pub(super) rings: Option<[Ring; 2]>,
    /// The last wire that took it.
    pub(super) wire: Weak<Wire>,
}

/// Opens the inner ends of wired links. This is slow, so it happens before the
/// first probe, and no frame is lost that arrives before there is a policy.
pub(super) fn open(wire_namespace: Option<&Namespace>, wired: &mut [Wired], hosts: &[Host]) -> Result<()> {
    let Some(wire_namespace) = wire_namespace else { return Ok(()) };
    let mut places = vec![];
    for link in &*wired {
        let [one, other] = link.nodes.map(|node| hosts[node].name());
        for interface in &link.interfaces {
            offload::switch_off(wire_namespace, interface)?;
            places.push((format!("{one}-{other}"), interface));
        }
    }
    let open = |(wire, interface): (String, &String)| Ring::open(&wire, wire_namespace, interface);
    let mut rings = ring::open_all(places, open)?.into_iter();
    for link in wired {
        link.rings = rings.next().zip(rings.next()).map(|(one, other)| [one, other]);
    }
    Ok(())
}
