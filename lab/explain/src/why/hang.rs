//! Hangs in the kernel: which task sleeps where, and what it waits for.

use std::time::Duration;

use super::{Arm, Finding, Rank, seconds};
use faultlab_model::recording::{Task, Wait};

/// What a task waits for if it sleeps in one of these functions.
const WAITS_FOR: [(&[&str], &str); 3] = [
    (
        // net/core/dev.c; the compiler may inline the first two into the third.
        &["netdev_wait_allrefs_any", "netdev_wait_allrefs", "netdev_run_todo"],
        "waits until every reference to a device is given back",
    ),
    (
        // net/core/rtnetlink.c, net/core/link_watch.c; a stack omits the functions of
        // the mutex itself.
        &[
            "rtnl_lock",
            "rtnl_lock_killable",
            "rtnetlink_rcv_msg",
            "rtnl_dumpit",
            "register_netdev",
            "netlink_dump",
            "linkwatch_event",
            "addrconf_verify_work",
            "addrconf_dad_work",
        ],
        "waits for the RTNL mutex",
    ),
    (&["copy_net_ns", "setup_net", "cleanup_net"], "waits for other tasks that create or free namespaces"),
];

/// What a task holds if it sleeps in one of these functions.
const KEEPS: [(&[&str], &str); 2] = [
    // net/ethtool/ioctl.c: dev_ethtool; net/core/dev_ioctl.c.
    (&["dev_ethtool", "dev_ioctl", "__dev_ethtool"], "with the RTNL mutex locked"),
    // net/packet/af_packet.c: packet_snd, tpacket_snd.
    (
        &["packet_snd", "tpacket_snd", "packet_sendmsg", "sock_alloc_send_pskb"],
        "with a reference to the device that it sends to",
    ),
];

fn meaning(task: &Task, of: &[(&[&str], &'static str)]) -> Option<&'static str> {
    of.iter().find(|(functions, _)| task.is_in(functions)).map(|(_, meaning)| *meaning)
}

/// What the lab waited for, with where the task sleeps, and the tasks that sleep
/// while they hold something that others may need.
pub(super) fn hangs(arm: &Arm<'_>) -> Vec<Finding> {
    let keeps = |wait: &&Wait| wait.task.as_ref().is_some_and(|task| meaning(task, &KEEPS).is_some());
    let (keepers, waiting): (Vec<&Wait>, Vec<&Wait>) = arm.recording.waits.iter().partition(keeps);
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
        (task.is_none_or(|task| meaning(task, &WAITS_FOR).is_none()), std::cmp::Reverse(group[0].waited))
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
            for task in arm.recording.kernel.iter().filter(|task| meaning(task, &WAITS_FOR).is_some()) {
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
            let what = meaning(task, &WAITS_FOR).map(str::to_owned).or(task.place()).unwrap_or_default();
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
    match meaning(task, &WAITS_FOR) {
        Some(meaning) => format!("{task} {meaning}"),
        None => task.to_string(),
    }
}

fn of_keeper(wait: &Wait) -> String {
    let task = wait.task.as_ref().expect("a keeper is a task");
    format!("{task} sleeps {}, for {}", meaning(task, &KEEPS).unwrap_or_default(), seconds(wait.waited))
}
