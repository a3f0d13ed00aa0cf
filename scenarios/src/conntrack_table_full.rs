//! "nf_conntrack: table full, dropping packet"

use lab::conntrack::Status;
use lab::evidence::kernel_log::Record;
use lab::prelude::*;

const CARD: Card = Card {
    name: "conntrack-table-full",
    title: "The conntrack table is full: new connections fail, old ones go on",
    family: "queues, tables and ports",
    saw: "New connections through one node time out, for everyone and every service; sessions that are open \
          go on. The CPU is idle, no link is full, and dmesg has \"nf_conntrack: table full, dropping \
          packet\".",
    cause: "conntrack keeps at most nf_conntrack_max flows. When a packet would begin one more, it throws \
            out a flow that is not ASSURED, if it finds one in the eight hash buckets that it looks at \
            (early_drop); else it drops the packet. An ASSURED flow stays until its timeout, five days for \
            an idle ESTABLISHED one, long after its ends may have gone.",
    function: "net/netfilter/nf_conntrack_core.c: __nf_conntrack_alloc, early_drop",
    cure: "A larger nf_conntrack_max: kube-proxy sets max(131072, 32768 x cores). A shorter \
           nf_conntrack_tcp_timeout_established (an hour is common), so that idle flows go. notrack for \
           traffic that needs no state. Not a cure: more hash buckets, which make lookups faster and the \
           table no larger.",
    reading: &[
        "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_max, nf_conntrack_buckets",
        "kubernetes: kube-proxy --conntrack-max-per-core (32768), --conntrack-min (131072)",
    ],
};

const SETTINGS: &[Setting] = &[
    Setting::number("flows", "flows of the office; the fault's nf_conntrack_max", "flows", FLOWS, [16, 16]),
    Setting::seconds("silence", "how long all but one of them have been idle", 8, 4000),
    Setting::seconds("established", "the shorter-timeout arm's tcp_timeout_established", 4, 3600)
        .at_most(Limit::JIFFIES),
];

const FLOWS: Limit =
    Limit { most: 2 * PORTS as u64, why: "each has a source port, and the office's server two addresses" };

/// The most flows that are listed as evidence.
const FEW_LINES: u64 = 256;

/// How many flows lead to one address, each from its own source port.
const PORTS: u16 = 50_000;
/// The first of those source ports.
const FIRST_PORT: u16 = 15_000;

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a new connection", "connected"), arms, play)
        .needs([Need::Veth, Need::Conntrack, Need::KernelLog, Need::ExclusiveKernel])
        // nf_conntrack_max applies to the whole kernel.
        .sequential(|_| true)
        .settings(SETTINGS)
        .lasts(|env| env.seconds("silence"))
        .eras([
            Era::new("names-the-namespace", "6.17 and later", |env| env.kernel.at_least(6, 17))
                .since("the kernel's line has the number of the namespace whose table it is"),
            Era::new("table-full", "4.10 to 6.16", is_4_10).since("nf_tables has notrack (254432613c58)"),
            Era::new("before-notrack", "4.9", is_4_9).since(
                "nf_conntrack_buckets can be written (3183ab8997a4, after 4.4); no notrack in nf_tables",
            ),
            Era::new("buckets-read-only", "up to 4.8", |_| true)
                .since("nf_conntrack_buckets is read-only; no notrack in nf_tables"),
        ])
}

fn is_4_9(env: &Environment) -> bool {
    env.kernel.at_least(4, 9)
}

fn is_4_10(env: &Environment) -> bool {
    env.kernel.at_least(4, 10)
}

const MAX: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

/// The hash buckets of a guest with 256 MiB suffice for this many flows. With more
/// the chains of a bucket grow, and the kernel accepts at most some 50 to 100 entries
/// in one since 5.15 (nf_conntrack_core.c, MIN_CHAINLEN).
const FEW: u64 = 2048;

/// Only the router's table must fill up. Before 4.10 the end hosts also track
/// their own packets, so the newcomer shares neither a link nor a server with
/// the office.
fn network(env: &Environment) -> Topology {
    let flows = env.number("flows");
    let network = Topology::new()
        .hosts(["office", "newcomer"])
        .router("router")
        .hosts(["archive", "server"])
        .link("office 10.0.0.2/24", "router 10.0.0.1/24")
        .link("newcomer 10.0.1.2/24", "router 10.0.1.1/24")
        .link("router 10.0.2.1/24", "archive 10.0.2.2/24 10.0.2.3/24")
        .link("router 10.0.3.1/24", "server 10.0.3.2/24")
        .rule("router", Rule::accept("known").ct_state(CtState::ESTABLISHED | CtState::RELATED))
        .rule("router", Rule::drop("invalid").ct_state(CtState::INVALID))
        .kernel_sysctl(MAX, 2 * flows);
    if flows > FEW && is_4_9(env) { network.kernel_sysctl(BUCKETS, flows) } else { network }
}

const SERVER: [u8; 4] = [10, 0, 3, 2];
const ARCHIVE: [[u8; 4]; 2] = [[10, 0, 2, 2], [10, 0, 2, 3]];
const NOBODY: [u8; 4] = [10, 0, 2, 99];
const PATIENCE: Duration = Duration::from_secs(4);

/// So many entries that are not ASSURED that early_drop, which examines eight
/// buckets, finds one; a guest with 256 MB has about 2000 buckets.
const HALF_OPEN: u16 = 1024;

#[derive(Debug, Clone)]
struct Conduct {
    flows: u64,
    unanswered_syns: u16,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let flows = env.number("flows");
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let (shorter, silence) = (env.seconds("established"), env.seconds("silence"));
    let base = Conduct { flows, unanswered_syns: 0 };
    Arms::control("nf_conntrack_max is twice the number of flows", network(env), base)
        .fault("nf_conntrack_max is the number of flows", |arm| arm.kernel_sysctl(MAX, flows))
        .variant("half-open", "a table of 1024, full of SYNs that nobody answered: not ASSURED", |arm| {
            arm.kernel_sysctl(MAX, HALF_OPEN);
            if flows > FEW && is_4_9(env) {
                arm.kernel_sysctl(BUCKETS, 2 * HALF_OPEN);
            }
            arm.conduct = Conduct { flows: 1, unanswered_syns: HALF_OPEN - 1 };
        })
        // kubernetes: cmd/kube-proxy/app/server_linux.go, getConntrackMax.
        .remedy("kube-proxy-max", "nf_conntrack_max = max(131072, 32768 x cores)", |arm| {
            arm.kernel_sysctl(MAX, u64::max(131_072, 32_768 * cores));
        })
        .remedy("shorter-timeout", "nf_conntrack_tcp_timeout_established=3600 on the router", |arm| {
            let key = "net.netfilter.nf_conntrack_tcp_timeout_established";
            arm.sysctl("router", key, shorter.as_secs());
        })
        .no_effect_if(shorter >= silence, || {
            let (shorter, silence) = (shorter.as_secs(), silence.as_secs());
            format!("a flow that is idle for {silence} s stays with a timeout of {shorter} s")
        })
        .remedy("notrack", "the router does not track connections to port 80", |arm| {
            arm.first_rule("router", Rule::notrack("answers").tcp().source_port(80));
            arm.first_rule("router", Rule::notrack("requests").tcp().destination_port(80));
        })
        .only_where(is_4_10(env))
        .remedy("more-buckets", "eight times as many nf_conntrack_buckets", |arm| {
            arm.kernel_sysctl(BUCKETS, 8 * flows.max(FEW));
        })
        .only_where(is_4_9(env))
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (office, archive) = (stage.host("office"), stage.host("archive"));
    let open = async |number: u64| {
        let port = FIRST_PORT + u16::try_from(number % u64::from(PORTS)).expect("it is below PORTS");
        let address = ARCHIVE[usize::from(number >= u64::from(PORTS))];
        Flow::open_from(office, port, (address, 80), archive, 80).await
    };
    let mut live = open(0).await?;
    for number in 1..conduct.flows {
        // The table keeps the flow; the sockets would fill the memory of a guest.
        open(number).await?.abandon()?;
    }
    let silence = stage.env.seconds("silence");
    for _ in 0..4 {
        live.exchange(Side::Client, PATIENCE).await?;
        stage.pass(silence / 4).await;
    }
    for n in 1..=conduct.unanswered_syns {
        connect(office, 10_000 + n, (NOBODY, 80), Duration::from_millis(1)).await?;
    }
    let router = Conntrack::of(stage.host("router").namespace())?;
    let before = router.stats()?;
    let assured = router.entries()?.iter().filter(|e| e.status.contains(Status::ASSURED)).count();
    let table = format!("{assured} of at most {}", sysctl::get(stage.host("router").namespace(), MAX)?);

    let _listener = listen(stage.host("server"), 80)?;
    let new = connect(stage.host("newcomer"), 0, (SERVER, 80), PATIENCE).await?;
    stage.observe("a new connection", &new);
    stage.observe("an old connection's next request", live.exchange(Side::Client, PATIENCE).await?);
    stage.observe("ASSURED flows before it", &table);
    let after = router.stats()?;
    let grew = |statistic: &Statistic| after.since(&before, *statistic) > 0;
    let counted = [Statistic::Drop, Statistic::EarlyDrop].into_iter().find(grew);
    stage.observe("conntrack counts", counted.map_or("nothing".to_owned(), |s| s.to_string()));
    if conduct.unanswered_syns > 0 || conduct.flows > FEW_LINES {
        // Omit a thousand alike lines of evidence.
        router.flush()?;
    }
    let logged = stage.logged(Record::conntrack_table_full, Duration::ZERO).await?;
    let logged = logged.as_deref().unwrap_or("nothing");
    stage.observe("the kernel logs", logged);
    let dropped = after.since(&before, Statistic::Drop);
    stage.because(format!(
        "{table} ASSURED flows; the newcomer's connect(): {new}; dropped: {dropped}; the kernel: {logged}",
        new = *new
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lab::kernel::Kernel;
    use lab::scenario::Clock;

    use super::*;

    #[test]
    fn the_buckets_can_be_written_from_4_9_on() {
        let scenario = scenario();
        for (release, era, buckets, notrack) in [
            ("4.4.178", "buckets-read-only", false, false),
            ("4.9.337", "before-notrack", true, false),
            ("4.10.17", "table-full", true, true),
        ] {
            let mut kernel = Kernel::running();
            kernel.release = release.to_owned();
            let env = Environment::new(&scenario, kernel, Clock::Virtual, &BTreeMap::new());
            let arms = scenario.arms_on(&env, &[]);
            let has = |name: &str| arms.iter().any(|arm| arm.name == name);
            assert_eq!(scenario.era(&env).map(|era| era.name), Some(era));
            assert_eq!((has("more-buckets"), has("notrack")), (buckets, notrack), "{release}");
        }
    }
}
