//! The catalogue of faults: one file each, in the words of the incident.

mod conntrack_beyond_window_reset;
mod conntrack_close_wait_expiry;
mod conntrack_delayed_segment_reset;
mod conntrack_idle_expiry;
mod conntrack_table_full;
mod keepalive_behind_nat;
mod keepalive_dead_peer;
mod netns_teardown_hang;
mod node_agent;
mod one_address;
mod pod_stuck_terminating;
mod probe_timeout;
mod route_exception_leak;
mod rtnl_stall;
mod service;
mod time_wait_port_reuse;
mod tw_recycle_nat;
mod tw_recycle_pod_and_node;
mod veth_teardown_hang;

use lab::Catalogue;
use lab::scenario::Scenario;

/// Every scenario with its reviewed outcomes.
pub const CATALOGUE: Catalogue = Catalogue { scenarios: SCENARIOS, snapshots };

const SCENARIOS: &[Scenario] = &[
    tw_recycle_nat::SCENARIO,
    tw_recycle_pod_and_node::SCENARIO,
    time_wait_port_reuse::SCENARIO,
    conntrack_delayed_segment_reset::SCENARIO,
    conntrack_beyond_window_reset::SCENARIO,
    conntrack_idle_expiry::SCENARIO,
    conntrack_close_wait_expiry::SCENARIO,
    conntrack_table_full::SCENARIO,
    veth_teardown_hang::SCENARIO,
    netns_teardown_hang::SCENARIO,
    route_exception_leak::SCENARIO,
    rtnl_stall::SCENARIO,
    pod_stuck_terminating::SCENARIO,
    keepalive_dead_peer::SCENARIO,
    keepalive_behind_nat::SCENARIO,
    probe_timeout::SCENARIO,
];

// SNAPSHOTS: a table of names and texts, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/snapshots.rs"));

fn snapshots(name: &str) -> Option<&'static str> {
    SNAPSHOTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use lab::snapshot::read;

    use super::snapshots;

    #[test]
    fn the_model_of_tcp_tw_recycle_does_what_real_kernels_did() {
        // Recorded on real 4.9 and 4.4 kernels, and with the model of 4.x.
        for name in ["tw-recycle-nat", "tw-recycle-pod-and-node"] {
            let cells = |era: &str| read(snapshots(&format!("{name}@{era}")).unwrap()).unwrap();
            for model in ["model", "model+short"] {
                assert_eq!(cells("has-tcp-tw-recycle"), cells(model), "{name}");
            }
        }
    }
}
