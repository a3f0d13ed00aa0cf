//! Hangs in the kernel: which task sleeps where, and what it waits for.

use std::time::Duration;

use super::{Arm, Finding, Rank, seconds};
use faultlab_model::recording::{Task, Wait};

/// What a task waits for, by where it sleeps.
struct WaitsFor {
    /// The innermost function of the stack is one of these; a trailing `*` matches any
    /// ending. A stack omits the functions of a lock, so its innermost function is the
    /// one that takes the lock. The functions further out prove nothing: cleanup_net
    /// takes one lock itself, and calls functions that take others.
    innermost: &'static [&'static str],
    /// One of these must be further out in the stack; any stack matches if empty.
    within: &'static [&'static str],
    meaning: &'static str,
}

const WAITS_FOR: [WaitsFor; 3] = [
    WaitsFor {
        innermost: &["msleep"],
        // net/core/dev.c; the compiler may inline the first two into the third, which
        // waits for RCU too.
        within: &["netdev_wait_allrefs_any", "netdev_wait_allrefs", "netdev_run_todo"],
        meaning: "waits until every reference to a device is given back",
    },
    WaitsFor {
        // net/core/rtnetlink.c, where rtnl_newlink locks it itself from 6.13 on;
        // net/core/link_watch.c. A dump locks its socket's mutex: on older
        // kernels that is the RTNL mutex, on newer ones no other task takes it.
        innermost: &[
            "rtnl_*",
            "rtnetlink_rcv_msg",
            "__netlink_dump_start",
            "netlink_dump",
            "dev_ethtool",
            "dev_ioctl",
            "register_netdev",
            "linkwatch_event",
            "addrconf_verify_work",
            "addrconf_dad_work",
            "default_device_exit_batch",
            "fib6_rules_net_exit_batch",
            "ipmr_net_exit_batch",
            "ops_undo_list",
        ],
        within: &[],
        meaning: "waits for the RTNL mutex",
    },
    WaitsFor {
        // net/core/net_namespace.c; up to 4.16, the functions also lock the RTNL mutex.
        innermost: &["copy_net_ns", "setup_net", "cleanup_net"],
        within: &[],
        meaning: "waits for other tasks that create or free namespaces, or up to 4.16 for the RTNL mutex",
    },
];

/// What a task holds if it sleeps in one of these functions, and does not wait for
/// another task.
const KEEPS: [(&[&str], &str); 2] = [
    // net/ethtool/ioctl.c: dev_ethtool; net/core/dev_ioctl.c.
    (&["dev_ethtool", "dev_ioctl", "__dev_ethtool"], "with the RTNL mutex locked"),
    // net/packet/af_packet.c: packet_snd, tpacket_snd.
    (
        &["packet_snd", "tpacket_snd", "packet_sendmsg", "sock_alloc_send_pskb"],
        "with a reference to the device that it sends to",
    ),
];

fn waits_for(task: &Task) -> Option<&'static str> {
    let innermost = task.stack.first()?;
    let sleeps_in = |name: &&str| match name.strip_suffix('*') {
        Some(prefix) => innermost.starts_with(prefix),
        None => innermost == name,
    };
    let is_it = |one: &&WaitsFor| {
        one.innermost.iter().any(sleeps_in) && (one.within.is_empty() || task.is_in(one.within))
    };
    WAITS_FOR.iter().find(is_it).map(|one| one.meaning)
}

fn keeps(task: &Task) -> Option<&'static str> {
    if waits_for(task).is_some() {
        return None;
    }
    KEEPS.iter().find(|(functions, _)| task.is_in(functions)).map(|(_, meaning)| *meaning)
}

/// The requests that hung, with where their tasks sleep, and the tasks that sleep while
/// they hold something that others may need.
pub(super) fn hangs(arm: &Arm<'_>) -> Vec<Finding> {
    let is_keeper = |wait: &&Wait| wait.task.as_ref().is_some_and(|task| keeps(task).is_some());
    let (keepers, waiting): (Vec<&Wait>, Vec<&Wait>) = arm.recording.waits.iter().partition(is_keeper);
    let mut groups: Vec<(String, Vec<&Wait>)> = vec![];
    for wait in waiting {
        let sort = sort(wait);
        match groups.iter_mut().find(|(known, _)| *known == sort) {
            Some((_, group)) => group.push(wait),
            None => groups.push((sort, vec![wait])),
        }
    }
    // The tasks known to wait for something come first, then the longest waits.
    groups.sort_by_key(|(_, group)| {
        let task = group[0].task.as_ref();
        (task.is_none_or(|task| waits_for(task).is_none()), std::cmp::Reverse(group[0].waited))
    });
    let log = arm.recording.log.iter().find(|text| text.contains("unregister_netdevice"));
    let finding = |kind: String, text: String| Finding::new(Rank::Hang, Duration::ZERO, kind, text);
    let mut found: Vec<Finding> = vec![];
    for (sort, group) in groups {
        let mut text = of_group(&group);
        if found.is_empty() {
            for keeper in &keepers {
                text.push_str(&format!("; {}", of_keeper(keeper)));
            }
            for task in arm.recording.kernel.iter().filter(|task| waits_for(task).is_some()) {
                text.push_str(&format!("; the kernel's own {}", of_task(task)));
            }
            if keepers.is_empty() && log.is_some() {
                text.push_str("; no sleeping task was seen to hold a reference to the device");
            }
            text.extend(log.map(|log| format!("; the kernel says: {log}")));
        }
        found.push(finding(sort, text));
    }
    found
}

/// The key by which waits are grouped.
fn sort(wait: &Wait) -> String {
    match &wait.task {
        None => format!("waits at {}", wait.host),
        Some(task) => {
            let what = waits_for(task).map(str::to_owned).or(task.place()).unwrap_or_default();
            format!("waits in {what} at {}", wait.host)
        }
    }
}

fn of_group(group: &[&Wait]) -> String {
    let longest = group.iter().max_by_key(|wait| wait.waited).expect("a group has one");
    let time = seconds(longest.waited);
    let who = match group {
        [one] => format!("{} at {}", one.what, one.host),
        many => format!("{} requests at {}", many.len(), longest.host),
    };
    match &longest.task {
        None => format!("{} waited {time} for {}", longest.host, longest.what),
        Some(task) => format!("{who} hung for {time}: {}", of_task(task)),
    }
}

fn of_task(task: &Task) -> String {
    match waits_for(task) {
        Some(meaning) => format!("{task} {meaning}"),
        None => task.to_string(),
    }
}

fn of_keeper(wait: &Wait) -> String {
    let task = wait.task.as_ref().expect("a keeper is a task");
    format!("{task} sleeps {}, for {}", keeps(task).unwrap_or_default(), seconds(wait.waited))
}
