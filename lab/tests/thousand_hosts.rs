//! 1,000 hosts on one bridge, in a process of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, ExitCode};
use std::time::Duration;

use lab::machine::isolation::{Privilege, isolate};
use lab::network::Network;
use lab::probe::{Answer, Flow, Side};
use lab::topology::Topology;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::{Pid, geteuid};
use tokio::task::LocalSet;

/// A bridge takes 1023 ports: net/bridge/br_private.h, BR_MAX_PORTS.
const HOSTS: u32 = 1000;

/// What the process may keep resident, in kB: 100 MB.
const RESIDENT_MAX: u64 = 100_000;

/// Makes this program the process that builds the network.
const INSIDE: &str = "__inside";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(INSIDE) {
        // No thread may have been started before this.
        let privilege = if geteuid().is_root() { Privilege::Root } else { Privilege::UserNamespace };
        isolate(privilege, Pid::parent()).expect("namespaces of its own");
        inside();
        return ExitCode::SUCCESS;
    }
    let trial = Trial::test("a_thousand_hosts_take_less_than_100_mb", || {
        let this = std::env::current_exe()?;
        let output = Command::new(this).arg(INSIDE).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failed::from(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn inside() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let network = Network::build(behind_a_router()).await.expect("a network");
        let (first, last) = (network.host("h1"), network.host("h1000"));
        let service = SocketAddrV4::new(last.address(), 80);
        let mut flow = Flow::open(first, service, last, 80).await.expect("a connection");
        let met = flow.exchange(Side::Client, Duration::from_secs(5)).await.expect("two sockets");
        assert_eq!(met, Answer::Received);
    });
    let peak = peak();
    println!("{HOSTS} hosts: at most {peak} kB resident");
    assert!(peak < RESIDENT_MAX, "{HOSTS} hosts made {peak} kB resident; {RESIDENT_MAX} are allowed");
}

fn behind_a_router() -> Topology {
    let begin = Topology::new().bridge("lan").router("router").link("router 10.0.0.1/16", "lan");
    (1..=HOSTS).fold(begin, |topology, n| {
        let (name, address) = (format!("h{n}"), Ipv4Addr::from_bits(0x0a00_0001 + n));
        topology.host(&name).link(&format!("{name} {address}/16"), "lan")
    })
}

/// The most that was ever resident, in kB: VmHWM of proc_pid_status(5).
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
