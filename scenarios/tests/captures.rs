//! Compares captures and ladders with tshark, which dissects the frames
//! independently.

#[allow(dead_code, reason = "nobody types here")]
mod user;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use faultlab_testkit::{Answer, leave_out};

use user::{ask, needs_namespaces};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    beyond_the_window,
    recycled_behind_nat,
    a_port_in_time_wait,
    a_keepalive_behind_nat,
    nothing_looks_like_a_retransmission_but_what_was_sent_again,
];

fn beyond_the_window() {
    let found = agrees("conntrack-beyond-window-reset");
    assert!(found.resets > 0, "{found:?}");
}

fn recycled_behind_nat() {
    let found = agrees("tw-recycle-nat --set recycle=model");
    assert!(found.again > 0, "SYNs that are not answered: {found:?}");
}

fn a_port_in_time_wait() {
    agrees("time-wait-port-reuse");
}

fn a_keepalive_behind_nat() {
    let found = agrees("keepalive-behind-nat");
    assert!(found.resets > 0, "{found:?}");
}

fn nothing_looks_like_a_retransmission_but_what_was_sent_again() {
    needs_namespaces();
    // With a service address, NAT with changed timestamps, a router without
    // either, and IPv6.
    for line in [
        "conntrack-beyond-window-reset",
        "tw-recycle-nat --set recycle=model",
        "time-wait-port-reuse",
        "keepalive-dead-peer",
        "conntrack-idle-expiry --set family=ipv6",
    ] {
        let folder = tempfile::tempdir().expect("a directory");
        let Answer { status, out, err } = ask(&format!("run {line} --pcap {}", folder.path().display()));
        assert_eq!(status, Some(0), "{out}{err}");
        let files: Vec<_> = fs::read_dir(folder.path()).expect("a directory").flatten().collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            let mut known = HashMap::new();
            for (number, segment) in (1..).zip(dissect(&file.path())) {
                let place = format!("{line}, {}, frame {number}: {segment:?}", file.path().display());
                // A packet that a wire changed is shown again as it was
                // received.
                let is_copy = segment.tcp && !segment.says(" received it: ") && {
                    let Segment { interface, src, dst, id, seq, ack, flags, length, .. } = &segment;
                    let key = (src.clone(), dst.clone(), id.clone(), *seq, *ack, *flags, *length);
                    // The same segment twice on one interface is a
                    // retransmission, not a copy.
                    known.insert(key, interface.clone()).is_some_and(|before| before != *interface)
                };
                let looks_so = segment.again || segment.duplicate_ack;
                assert!(!is_copy || !looks_so || segment.says("sent again"), "{place}");
            }
        }
    }
}

/// How often tshark and faultlab agreed.
#[derive(Debug, Default)]
struct Found {
    again: usize,
    resets: usize,
}

/// Runs a scenario. tshark must read all its captures, and find in them what
/// their comments and the ladders say.
fn agrees(line: &str) -> Found {
    needs_namespaces();
    let folder = tempfile::tempdir().expect("a directory");
    let Answer { status, out, err } =
        ask(&format!("run {line} --ladder --pcap-both-ends --pcap {}", folder.path().display()));
    assert_eq!(status, Some(0), "{out}{err}");
    let scenario = line.split(' ').next().expect("a name");
    let mut found = Found::default();
    let files: Vec<_> = fs::read_dir(folder.path()).expect("a directory").flatten().collect();
    for file in files {
        let name = file.file_name().into_string().expect("UTF-8");
        let file = file.path();
        let arm = name.strip_prefix(&format!("{scenario}.")).and_then(|n| n.strip_suffix(".pcapng"));
        let arm = arm.unwrap_or_else(|| panic!("a file {name}"));
        let seen = by_interface(&file);
        comments_agree(&name, &dissect(&file), &seen);
        probes_agree(&name, row_of(scenario), &seen);
        let count = |wanted: fn(&Segment) -> bool| {
            let crosses = |s: &&Segment| s.outgoing || s.says("made by the wire");
            seen.values().filter(crosses).filter(|s| wanted(s)).count()
        };
        let (again, resets) = (count(|s| s.says("sent again")), count(|s| s.has(RST)));
        found.again += again;
        found.resets += resets;
        // The ladders are of the same run; only the control and the fault have
        // one.
        let heading = format!("{scenario}, {arm} arm\n");
        let Some((_, drawn)) = out.split_once(&heading) else { continue };
        let drawn: Vec<_> = drawn.lines().take_while(|line| !line.contains(" packets between ")).collect();
        if drawn.iter().any(|line| line.contains(" more packet")) {
            continue;
        }
        let words = |word: &str| drawn.iter().filter(|l| l.split(' ').any(|w| w == word)).count();
        assert_eq!((words("again"), words("RST")), (again, resets), "{name}: {}", drawn.join("\n"));
    }
    found
}

/// tshark's description of a frame.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a finding of tshark")]
struct Segment {
    /// The capturing host and its interface.
    interface: String,
    outgoing: bool,
    comment: String,
    id: String,
    /// Addresses and ports.
    src: String,
    dst: String,
    tcp: bool,
    seq: u32,
    ack: u32,
    /// The flags of a TCP header: [`FIN`] and so on.
    flags: u16,
    length: u32,
    again: bool,
    /// Whether tshark takes it for a duplicate ACK.
    duplicate_ack: bool,
}

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;

impl Segment {
    fn host(&self) -> &str {
        self.interface.split(' ').next().unwrap_or_default()
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The number of a frame that the comment refers to.
    fn frame_after(&self, words: &str) -> Option<usize> {
        let (_, number) = self.comment.split_once(words)?;
        Some(number.split(';').next()?.parse().expect("a number"))
    }

    fn says(&self, words: &str) -> bool {
        self.comment.contains(words)
    }
}

const FIELDS: [&str; 16] = [
    "frame.interface_name",
    "frame.packet_flags_direction",
    "frame.comment",
    "ip.id",
    "tcp.srcport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "tcp.len",
    "tcp.analysis.retransmission",
    "icmp.type",
    "tcp.analysis.out_of_order",
    "ip.src",
    "ip.dst",
    "tcp.dstport",
    "tcp.analysis.duplicate_ack",
];

/// Has tshark read a file; it must print only the requested fields.
fn dissect(file: &Path) -> Vec<Segment> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "aggregator=;"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field])).stdin(Stdio::null());
    let said =
        command.output().unwrap_or_else(|_| leave_out("tshark is not installed: nothing to read with"));
    let warnings = String::from_utf8_lossy(&said.stderr).into_owned();
    let warnings: Vec<_> = warnings.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert_eq!((said.status.code(), warnings.as_slice()), (Some(0), &[""; 0][..]), "{}", file.display());
    let text = String::from_utf8(said.stdout).expect("UTF-8");
    text.lines().map(|line| segment(&line.split('\t').collect::<Vec<_>>())).collect()
}

fn segment(fields: &[&str]) -> Segment {
    assert_eq!(fields.len(), FIELDS.len(), "{fields:?}");
    // An ICMP error quotes a segment, but is not one.
    let tcp = !fields[4].is_empty() && fields[10].is_empty();
    let number = |at: usize| fields[at].parse().unwrap_or(0);
    let flags = fields[7].strip_prefix("0x").filter(|_| tcp).and_then(|f| u16::from_str_radix(f, 16).ok());
    Segment {
        interface: fields[0].to_owned(),
        // "Bits 0-1: inbound / outbound packet", of epb_flags.
        outgoing: fields[1] == "2" || fields[1] == "0x00000002",
        comment: fields[2].to_owned(),
        id: fields[3].to_owned(),
        src: format!("{}:{}", fields[12], fields[4]),
        dst: format!("{}:{}", fields[13], fields[14]),
        tcp,
        seq: number(5),
        ack: number(6),
        flags: flags.unwrap_or(0),
        length: number(8),
        // Within a round trip, tshark takes a retransmission for an out-of-order
        // segment.
        again: tcp && !(fields[9].is_empty() && fields[11].is_empty()),
        duplicate_ack: tcp && !fields[15].is_empty(),
    }
}

/// The frames by number, as tshark sees them on one interface at a time: it
/// takes a frame that occurs on several for a retransmission.
fn by_interface(file: &Path) -> BTreeMap<usize, Segment> {
    const INTERFACE: u32 = 1;
    const PACKET: u32 = 6;
    let bytes = fs::read(file).expect("a capture");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let mut blocks = vec![];
    let mut at = 0;
    while at < bytes.len() {
        let length = word(at + 4) as usize;
        blocks.push((word(at), word(at + 8), &bytes[at..at + length]));
        at += length;
    }
    let mut seen = BTreeMap::new();
    let interfaces = blocks.iter().filter(|(kind, ..)| *kind == INTERFACE).count();
    for interface in 0..u32::try_from(interfaces).expect("few") {
        let (mut one, mut numbers, mut number) = (vec![], vec![], 0);
        for (kind, on, block) in &blocks {
            number += usize::from(*kind == PACKET);
            if *kind != PACKET || *on == interface {
                one.extend_from_slice(block);
                numbers.extend((*kind == PACKET).then_some(number));
            }
        }
        let part: PathBuf = file.with_extension("part");
        fs::write(&part, one).expect("a file");
        let segments = dissect(&part);
        fs::remove_file(&part).expect("a file");
        assert_eq!(segments.len(), numbers.len());
        seen.extend(numbers.into_iter().zip(segments));
    }
    seen
}

/// The row that decides the scenario's verdict.
fn row_of(scenario: &str) -> &'static str {
    scenarios::CATALOGUE.find(scenario).expect("it is in the catalogue").symptom.row
}

/// Checks the comments on the probes' frames, and that exactly one of them is
/// for `row`.
fn probes_agree(file: &str, row: &str, seen: &BTreeMap<usize, Segment>) {
    let mut judged = 0;
    for (number, segment) in seen {
        let place = format!("{file}, frame {number}: {segment:?}");
        let Some((_, told)) = segment.comment.split_once("probe") else { continue };
        let (quoted, sentence) = told.split_once(": ").expect("a sentence");
        judged += usize::from(quoted == format!(" \"{row}\""));
        let words: Vec<_> = sentence.split([' ', ',']).collect();
        let opens = segment.has(SYN) && !segment.has(ACK);
        let (is, to) = match words[1] {
            "connects" => (segment.outgoing && opens, words[3]),
            "speaks" => (segment.outgoing && segment.length > 0, words[3]),
            "asks" => (segment.outgoing && opens, words[2]),
            "waits" => (opens, words[3]),
            other => panic!("{place}: {other}"),
        };
        let peer = if segment.outgoing { &segment.dst } else { &segment.src };
        assert!(is && segment.host() == words[0] && peer == to, "{place}");
        assert!(!segment.says("sent again"), "{place}");
    }
    assert_eq!(judged, 1, "{file}: frames of the probe of {row:?}");
}

/// Compares the comments with tshark's findings.
fn comments_agree(file: &str, all: &[Segment], seen: &BTreeMap<usize, Segment>) {
    assert_eq!(all.len(), seen.len(), "{file}");
    for (number, segment) in seen {
        let place = format!("{file}, frame {number}: {segment:?}");
        // A frame that arrives equals the one that left, whose comment marks a
        // retransmission.
        let first = segment.frame_after("sent again, first in frame ");
        assert!(!segment.again || !segment.outgoing || first.is_some(), "{place}");
        // tshark cannot recognise a retransmission if the first one was lost before
        // this link.
        let known = first.is_some_and(|first| seen[&first].interface == segment.interface);
        assert!(!known || segment.again, "{place}");
        assert_eq!(segment.has(RST), segment.says("RST made by"), "{place}");
        if let Some(answered) = segment.frame_after("answers frame ") {
            let asked = &seen[&answered];
            let next =
                asked.seq.wrapping_add(asked.length + u32::from(asked.has(SYN)) + u32::from(asked.has(FIN)));
            let wanted = if asked.has(ACK) { (asked.ack, false) } else { (next, true) };
            let is = if segment.has(ACK) { segment.ack } else { segment.seq };
            assert_eq!((is, segment.has(ACK)), wanted, "{place}");
        }
        if segment.tcp && segment.says("dropped by") {
            let passed_on = |(later, other): (&usize, &Segment)| {
                later > number
                    && other.outgoing
                    && (other.host(), &other.id, other.seq) == (segment.host(), &segment.id, segment.seq)
            };
            assert!(!seen.iter().any(passed_on), "{place}");
        }
    }
}
