//! What a task waits for.

use super::*;

#[test]
fn a_hang_is_told_with_who_keeps_what_it_waits_for() {
    let task = |name: &str, state, stack: &str| {
        let stack = stack.split(' ').map(str::to_owned).collect();
        Some(Task { name: name.into(), state, stack })
    };
    let wait = |what: &str, waited, task| Wait {
        host: "node".into(),
        what: what.into(),
        waited: Duration::from_secs(waited),
        task,
    };
    let mut arm = recording(&[]);
    let delete = task("plugin", 'D', "msleep netdev_run_todo rtnetlink_rcv_msg netlink_rcv_skb");
    let sender = task("sender", 'S', "sock_alloc_send_pskb packet_sendmsg __sys_sendto");
    arm.waits = vec![wait("the delete of veth0", 7, delete), wait("a frame to veth0", 8, sender)];
    arm.log = vec!["unregister_netdevice: waiting for veth0 to become free. Usage count = 2".into()];
    let hung = "the delete of veth0 at node hung for 7.0 s: plugin (D) in msleep <- netdev_run_todo <- \
                rtnetlink_rcv_msg waits until every reference to a device is given back; sender (S) in \
                sock_alloc_send_pskb <- packet_sendmsg sleeps with a reference to the device that it sends to, for \
                8.0 s; the kernel says: unregister_netdevice: waiting for veth0 to become free. Usage count = 2";
    assert_eq!(told(&arm, &recording(&[])), [hung]);
    // Without the privilege to read stacks, and without a task.
    arm.waits = vec![wait("the end of its link veth0", 2, None)];
    arm.log.clear();
    assert_eq!(told(&arm, &recording(&[])), ["node waited 2.0 s for the end of its link veth0"]);
}

#[test]
fn what_a_task_waits_for_is_told_by_its_innermost_function() {
    let device = "waits until every reference to a device is given back";
    let (rtnl, namespaces) =
        ("waits for the RTNL mutex", "waits for other tasks that create or free namespaces");
    for (stack, meaning) in [
        // 5.10, 6.1, 6.12 and 7.2, as recorded there.
        ("msleep netdev_run_todo default_device_exit_batch cleanup_net", Some(device)),
        ("rcu_barrier netdev_run_todo default_device_exit_batch ops_undo_list cleanup_net", None),
        ("__netlink_dump_start rtnetlink_rcv_msg netlink_rcv_skb", Some(rtnl)),
        ("rtnetlink_rcv_msg netlink_rcv_skb", Some(rtnl)),
        ("rtnl_newlink rtnetlink_rcv_msg netlink_rcv_skb", Some(rtnl)),
        ("ops_undo_list cleanup_net process_one_work", Some(rtnl)),
        ("fib6_rules_net_exit_batch ops_undo_list cleanup_net", Some(rtnl)),
        ("cleanup_net process_one_work", Some(namespaces)),
        // A request that waits for a module, not for the mutex.
        ("call_usermodehelper_exec __request_module rtnl_newlink rtnetlink_rcv_msg", None),
        // It waits for the mutex, and holds nothing.
        ("dev_ethtool dev_ioctl sock_ioctl", Some(rtnl)),
    ] {
        let stack = stack.split(' ').map(str::to_owned).collect();
        let task = Task { name: "task".into(), state: 'D', stack };
        let mut arm = recording(&[]);
        arm.waits = vec![Wait {
            host: "node".into(),
            what: "a request".into(),
            waited: Duration::from_secs(7),
            task: Some(task),
        }];
        let [line] = told(&arm, &recording(&[])).try_into().unwrap();
        match meaning {
            Some(meaning) => assert!(line.contains(meaning), "{line}"),
            None => assert!(!line.contains(" waits "), "{line}"),
        }
        assert!(!line.contains("with the RTNL mutex locked"), "{line}");
    }
}
