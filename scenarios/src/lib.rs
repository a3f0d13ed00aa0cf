//! The catalogue of faults: one file each, described as the users saw it.

mod accept_queue_overflow;
pub mod actors;
mod asymmetric_route_invalid;
mod conntrack_beyond_window_reset;
mod conntrack_close_wait_expiry;
mod conntrack_delayed_segment_reset;
mod conntrack_idle_expiry;
mod conntrack_table_full;
mod dns_five_seconds;
mod ephemeral_port_exhaustion;
mod idle_reset_by_the_middle;
mod ipv6_dad_bind;
mod keepalive;
mod keepalive_behind_nat;
mod keepalive_dead_peer;
mod namespace_held_by_a_descriptor;
mod neighbour_table_overflow;
mod netns_teardown_hang;
mod node_agent;
mod one_address;
mod pmtu_black_hole;
mod pod_stuck_terminating;
mod probe_timeout;
mod retransmission_stall;
mod reverse_path_filter;
mod route_exception_leak;
mod rtnl_stall;
mod service;
mod snat_port_exhaustion;
mod stale_neighbour;
mod syn_black_hole;
mod syn_sent_stale_translation;
mod sysctls;
mod teardown;
mod time_wait_port_reuse;
mod tw_recycle_nat;
mod tw_recycle_pod_and_node;
mod udp_stale_translation;
mod veth_teardown_hang;

use std::sync::LazyLock;

use lab::Catalogue;

/// Every scenario with its reviewed outcomes.
pub static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let scenarios = vec![
        tw_recycle_nat::scenario(),
        tw_recycle_pod_and_node::scenario(),
        time_wait_port_reuse::scenario(),
        ephemeral_port_exhaustion::scenario(),
        conntrack_delayed_segment_reset::scenario(),
        conntrack_beyond_window_reset::scenario(),
        conntrack_idle_expiry::scenario(),
        conntrack_close_wait_expiry::scenario(),
        conntrack_table_full::scenario(),
        snat_port_exhaustion::scenario(),
        neighbour_table_overflow::scenario(),
        accept_queue_overflow::scenario(),
        udp_stale_translation::scenario(),
        syn_sent_stale_translation::scenario(),
        dns_five_seconds::scenario(),
        veth_teardown_hang::scenario(),
        netns_teardown_hang::scenario(),
        route_exception_leak::scenario(),
        rtnl_stall::scenario(),
        pod_stuck_terminating::scenario(),
        keepalive_dead_peer::scenario(),
        keepalive_behind_nat::scenario(),
        idle_reset_by_the_middle::scenario(),
        retransmission_stall::scenario(),
        syn_black_hole::scenario(),
        probe_timeout::scenario(),
        pmtu_black_hole::scenario(),
        reverse_path_filter::scenario(),
        asymmetric_route_invalid::scenario(),
        stale_neighbour::scenario(),
        ipv6_dad_bind::scenario(),
        namespace_held_by_a_descriptor::scenario(),
    ];
    Catalogue::new(scenarios, snapshots)
});

// SNAPSHOTS: a table of names and texts, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/snapshots.rs"));

fn snapshots(name: &str) -> Option<&'static str> {
    SNAPSHOTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use lab::kernel::Kernel;
    use lab::scenario::{ArmKind, Clock, Environment, Number, Values};
    use lab::snapshot::read;

    use super::{CATALOGUE, snapshots};

    #[test]
    fn every_arm_makes_a_difference_and_the_fault_makes_one() {
        for (scenario, clock) in
            CATALOGUE.scenarios.iter().flat_map(|s| [(s, Clock::Real), (s, Clock::Virtual)])
        {
            let env = Environment::new(scenario, Kernel::running(), clock, &BTreeMap::new());
            for arm in scenario.arms_on(&env, &[]) {
                let least = usize::from(arm.kind != ArmKind::Control);
                let most = if arm.kind == ArmKind::Fault { 1 } else { usize::MAX };
                let edits = arm.edits.len();
                assert!(
                    least <= edits && edits <= most,
                    "{}, {}: {:?}",
                    scenario.card.name,
                    arm.name,
                    arm.edits
                );
                assert_eq!(arm.kind == ArmKind::Control, edits == 0, "{}: {}", scenario.card.name, arm.name);
            }
        }
    }

    #[test]
    fn every_default_is_a_value_that_a_setting_takes_and_follows_its_own_rule() {
        for (scenario, clock) in
            CATALOGUE.scenarios.iter().flat_map(|s| [(s, Clock::Real), (s, Clock::Virtual)])
        {
            let name = scenario.card.name;
            let env = Environment::new(scenario, Kernel::running(), clock, &BTreeMap::new());
            for setting in scenario.settings {
                let default = setting.default(clock);
                assert_eq!(setting.parse(&default).as_ref(), Ok(&default), "{name}: {}", setting.key);
                let Values::Number(Number { follows: Some(follows), .. }) = setting.values else { continue };
                let other = env.number(follows.key);
                assert_eq!((follows.default)(other).to_string(), default, "{name}: {}", setting.key);
            }
            // Every arm has an effect with the defaults.
            let arms = scenario.arms_on(&env, &[]);
            assert_eq!(arms.into_iter().find_map(|arm| arm.no_effect), None, "{name}");
            if clock == Clock::Real {
                assert!((scenario.lasts)(&env).as_secs() <= 60, "{name}");
            }
        }
    }

    #[test]
    fn the_values_that_users_type_are_taken() {
        for (scenario, key, value) in [
            ("conntrack-idle-expiry", "keepalive-time", "7200"),
            ("conntrack-idle-expiry", "established", "5d"),
            ("keepalive-behind-nat", "idle-timeout", "900"),
            ("keepalive-behind-nat", "time", "15min"),
            ("idle-reset-by-the-middle", "idle-timeout", "30min"),
            ("keepalive-dead-peer", "app-time", "2h"),
            ("probe-timeout", "period", "30"),
            ("conntrack-close-wait-expiry", "pause", "15min"),
            ("conntrack-table-full", "flows", "4096"),
        ] {
            let scenario = CATALOGUE.find(scenario).unwrap();
            let setting = scenario.settings.iter().find(|setting| setting.key == key).unwrap();
            assert!(setting.parse(value).is_ok(), "{key}={value}");
        }
    }

    /// A cell that is computed from the conduct would show what was planted,
    /// and not what was observed.
    #[test]
    fn no_cell_is_made_of_the_conduct() {
        let (mut folders, mut cells) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")], 0);
        while let Some(folder) = folders.pop() {
            for file in fs::read_dir(folder).expect("the sources") {
                let path = file.expect("a file").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).expect("text");
                for call in text.split("stage.observe").skip(1) {
                    let cell = call.split(");\n").next().unwrap_or(call);
                    assert!(!cell.contains("conduct"), "{}: stage.observe{cell}", path.display());
                    cells += 1;
                }
            }
        }
        // Every scenario has at least its symptom.
        assert!(cells >= CATALOGUE.scenarios.len(), "{cells} cells were found: has the method another name?");
    }

    #[test]
    fn the_model_of_tcp_tw_recycle_does_what_real_kernels_did() {
        // The snapshots of this era were recorded on 4.9 and 4.4.
        for name in ["tw-recycle-nat", "tw-recycle-pod-and-node"] {
            let cells = |era: &str| read(snapshots(&format!("{name}@{era}")).unwrap()).unwrap();
            for model in ["model", "model+short"] {
                assert_eq!(cells("has-tcp-tw-recycle"), cells(model), "{name}");
            }
        }
    }
}
