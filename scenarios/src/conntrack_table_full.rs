//! "nf_conntrack: table full, dropping packet"
//!
//! A router with a stateful firewall remembers every flow. One office holds as
//! many connections as nf_conntrack_max allows, most of them idle, all of them
//! ASSURED: both sides have spoken, so conntrack throws none of them out for
//! another. Nobody gets a new connection through, the SYNs vanish, and whoever
//! has one notices nothing.

use std::time::Duration;

use lab::Result;
use lab::conntrack::{Conntrack, Statistic, Status};
use lab::evidence::kernel_log::Record;
use lab::probe::{Flow, Side, connect, listen};
use lab::scenario::{Arm, Card, Era, Fault, Ground, Need, Plan, Play, Recheck, Scenario, Setting, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;
use lab::topology::rule::{CtState, Rule};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "conntrack-table-full",
            title: "The conntrack table is full: new connections fail, old ones go on",
            family: "conntrack INVALID on long-lived flows",
            saw: "New connections through one node time out, for everyone and every service; sessions that are open go \
              on. The CPU is idle, no link is full, and dmesg has \"nf_conntrack: table full, dropping packet\".",
            cause: "conntrack keeps at most nf_conntrack_max flows. When a packet would begin one more, it throws out a \
                flow that is not ASSURED, if it finds one in the eight hash buckets that it looks at (early_drop); \
                else it drops the packet. An ASSURED flow stays until its timeout, five days for an idle \
                ESTABLISHED one, long after its ends may have gone.",
            function: "net/netfilter/nf_conntrack_core.c: __nf_conntrack_alloc, early_drop",
            cure: "A larger nf_conntrack_max: kube-proxy sets max(131072, 32768 x cores). A shorter \
               nf_conntrack_tcp_timeout_established (an hour is common), so that idle flows go. notrack for traffic \
               that needs no state. Not a cure: more hash buckets, which make lookups faster and the table no larger.",
            reading: &[
                "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_max, nf_conntrack_buckets",
                "kubernetes: kube-proxy --conntrack-max-per-core (32768), --conntrack-min (131072)",
            ],
        },
        needs: &[Need::Veth, Need::Conntrack, Need::KernelLog, Need::OwnKernel],
        wedges: false,
        apart: |_| true,
        recheck: Recheck::Replay,
        settings: &[
            Setting::number(
                "flows",
                "flows of the office; the fault's nf_conntrack_max",
                "flows",
                64,
                [16, 16],
            ),
            Setting::seconds("silence", "how long all but one of them have been idle", 8, 4000),
            Setting::seconds("established", "the shorter-timeout arm's tcp_timeout_established", 4, 3600),
        ],
        arms: &[
            Arm::control("nf_conntrack_max is twice the number of flows"),
            Arm::fault("nf_conntrack_max is the number of flows"),
            Arm::variant("half-open", "a table of 1024, full of SYNs that nobody answered: not ASSURED"),
            Arm::remedy("kube-proxy-max", "nf_conntrack_max = max(131072, 32768 x cores)"),
            Arm::remedy("shorter-timeout", "nf_conntrack_tcp_timeout_established=3600 on the router"),
            Arm::remedy("notrack", "the router does not track connections to port 80").only_where(is_4_10),
            Arm::remedy("more-buckets", "nf_conntrack_buckets is 16384").only_where(is_4_10),
        ],
        eras: &[
            Era::new("names-the-namespace", "6.17 and later", |ground| ground.kernel.at_least(6, 17))
                .since("the kernel's line has the number of the namespace whose table it is"),
            Era::new("table-full", "4.10 to 6.16", is_4_10).since("nf_tables has notrack (254432613c58)"),
            Era::new("before-notrack", "up to 4.9", |_| true)
                .since("no notrack in nf_tables; the buckets are a module's parameter"),
        ],
        symptom: Symptom { row: "a new connection", healthy: "connected" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

const SERVER: [u8; 4] = [10, 0, 3, 2];
const OFFICE_SERVER: [u8; 4] = [10, 0, 2, 2];
const NOBODY: [u8; 4] = [10, 0, 2, 99];
const PATIENCE: Duration = Duration::from_secs(4);

/// Of entries that are not ASSURED, enough that one is near every hash:
/// early_drop looks at eight buckets of, in a guest of 256 MB, some 2000.
const HALF_OPEN: u16 = 1024;

fn is_4_10(ground: &Ground) -> bool {
    ground.kernel.at_least(4, 10)
}

/// nf_conntrack_max of an arm.
fn max(plan: &Plan<'_>) -> u64 {
    let flows = plan.ground.number("flows");
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    match plan.acts {
        "control" => 2 * flows,
        // kubernetes: cmd/kube-proxy/app/server_linux.go, getConntrackMax.
        "half-open" => HALF_OPEN.into(),
        "kube-proxy-max" => u64::max(131_072, 32_768 * cores),
        _ => flows,
    }
}

fn topology(plan: &Plan<'_>) -> Topology {
    // The full table must be the router's alone: before 4.10 the ends track
    // what they send and receive too, so the newcomer shares neither with the office.
    Topology::new()
        .hosts(["office", "newcomer"])
        .router("router")
        .hosts(["office-server", "server"])
        .link("office 10.0.0.2/24", "router 10.0.0.1/24")
        .link("newcomer 10.0.1.2/24", "router 10.0.1.1/24")
        .link("router 10.0.2.1/24", "office-server 10.0.2.2/24")
        .link("router 10.0.3.1/24", "server 10.0.3.2/24")
        .rule_if(plan.is("notrack"), "router", Rule::notrack("requests").tcp().destination_port(80))
        .rule_if(plan.is("notrack"), "router", Rule::notrack("answers").tcp().source_port(80))
        .rule("router", Rule::accept("known").ct_state(CtState::ESTABLISHED | CtState::RELATED))
        .rule("router", Rule::drop("invalid").ct_state(CtState::INVALID))
        .kernel_sysctl("net.netfilter.nf_conntrack_max", max(plan))
        .when(plan.is("shorter-timeout"), |t| {
            let timeout = plan.ground.number("established");
            t.sysctl("router", "net.netfilter.nf_conntrack_tcp_timeout_established", timeout)
        })
        .when(plan.is("more-buckets"), |t| t.kernel_sysctl("net.netfilter.nf_conntrack_buckets", 16_384))
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let (office, office_server) = (stage.host("office"), stage.host("office-server"));
    let open = || Flow::open(office, (OFFICE_SERVER, 80), office_server, 80);
    let (mut live, mut idle) = (open().await?, vec![]);
    for _ in 1..if stage.is("half-open") { 1 } else { stage.ground.number("flows") } {
        idle.push(open().await?);
    }
    let silence = stage.ground.seconds("silence");
    for _ in 0..4 {
        live.exchange(Side::Client, PATIENCE).await?;
        stage.pass(silence / 4).await;
    }
    if stage.is("half-open") {
        for port in 1..HALF_OPEN {
            connect(office, 10_000 + port, (NOBODY, 80), Duration::from_millis(1)).await?;
        }
    }
    let router = Conntrack::of(stage.host("router").namespace())?;
    let before = router.stats()?;
    let assured = router.entries()?.iter().filter(|e| e.status.contains(Status::ASSURED)).count();
    let table = format!("{assured} of at most {}", max(stage));

    let _listener = listen(stage.host("server"), 80)?;
    let new = connect(stage.host("newcomer"), 0, (SERVER, 80), PATIENCE).await?;
    stage.see("a new connection", &new);
    stage.see("an old connection's next request", live.exchange(Side::Client, PATIENCE).await?);
    stage.see("ASSURED flows before it", &table);
    let after = router.stats()?;
    let grew = |statistic: &Statistic| after.since(&before, *statistic) > 0;
    let counted = [Statistic::Drop, Statistic::EarlyDrop].into_iter().find(grew);
    stage.see("conntrack counts", counted.map_or("nothing".to_owned(), |s| s.to_string()));
    if stage.is("half-open") {
        // A thousand lines of evidence that say the same.
        router.flush()?;
    }
    let logged = stage.logged(Record::conntrack_table_full, Duration::ZERO).await?;
    let logged = logged.as_deref().unwrap_or("nothing");
    stage.see("the kernel logs", logged);
    if stage.faulty() {
        let met = format!("{table} ASSURED flows; the newcomer's connect(): {new}");
        stage.because(format!(
            "{met}; dropped: {}; the kernel: {logged}",
            after.since(&before, Statistic::Drop)
        ));
    }
    Ok(())
}
