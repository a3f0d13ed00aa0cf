//! The program that the kernel runs for each packet that it drops. It records the
//! namespace, the function and the reason, and copies the start of the packet. It
//! ignores packets for other hosts.
//!
//! - Documentation/bpf/standardization/instruction-set.rst
//! - include/trace/events/skb.h, kfree_skb; include/net/dropreason-core.h
//! - net/core/skbuff.c, sk_skb_reason_drop()

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "an instruction has small fields, and all of this fits"
)]

use super::btf::Btf;

/// The maximum length of a function's name, with its module and a zero byte.
pub(super) const NAME: usize = 64;
/// How much of a packet is kept, starting at its network header: the longest IPv4 and
/// TCP headers.
pub(super) const PACKET: usize = 120;

/// The offset of each field of a record.
pub(super) mod note {
    /// CLOCK_MONOTONIC in nanoseconds, 8 bytes.
    pub const AT: usize = 0;
    /// The caller's address, 8 bytes.
    pub const LOCATION: usize = 8;
    /// enum skb_drop_reason, 4 bytes.
    pub const REASON: usize = 16;
    /// The number of the network namespace, 4 bytes.
    pub const NAMESPACE: usize = 20;
    /// The EtherType in network byte order, 2 bytes.
    pub const PROTOCOL: usize = 24;
    /// The caller's name, terminated by a zero byte.
    pub const FUNCTION: usize = 32;
    /// The packet.
    pub const PACKET: usize = FUNCTION + super::NAME;
    /// The length of a record.
    pub const LENGTH: usize = PACKET + super::PACKET;
}

/// What the program must know about the running kernel: member offsets, in bytes from
/// the start of each structure.
#[derive(Debug)]
pub(super) struct Offsets {
    skb_dev: u32,
    skb_refdst: u32,
    skb_head: u32,
    skb_network_header: u32,
    skb_protocol: u32,
    dst_dev: u32,
    dev_net: u32,
    net_inum: u32,
    net_user_ns: u32,
    user_ns_inum: u32,
    /// SKB_DROP_REASON_OTHERHOST: a frame was dropped because it is for another host,
    /// as at the end of every wire. Some kernels do not have it.
    otherhost: Option<u32>,
}

impl Offsets {
    pub(super) fn of(btf: &Btf) -> Option<Self> {
        Some(Self {
            skb_dev: btf.offset("sk_buff", "dev")?,
            skb_refdst: btf.offset("sk_buff", "_skb_refdst")?,
            skb_head: btf.offset("sk_buff", "head")?,
            skb_network_header: btf.offset("sk_buff", "network_header")?,
            skb_protocol: btf.offset("sk_buff", "protocol")?,
            dst_dev: btf.offset("dst_entry", "dev")?,
            dev_net: btf.offset("net_device", "nd_net.net")?,
            net_inum: btf.offset("net", "ns.inum")?,
            net_user_ns: btf.offset("net", "user_ns")?,
            user_ns_inum: btf.offset("user_namespace", "ns.inum")?,
            otherhost: btf
                .enumerators("skb_drop_reason")
                .into_iter()
                .find_map(|(value, name)| (name == "SKB_DROP_REASON_OTHERHOST").then_some(value)),
        })
    }
}

/// The maps that the program uses, by descriptor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    /// A one-element array: the number of the user namespace whose packets are
    /// recorded, and the number of lost records, 8 bytes each.
    pub settings: i32,
    /// A one-element array: [`FORMAT`].
    pub format: i32,
    /// The ring of records.
    pub notes: i32,
}

/// The format by which the kernel prints an address as the name of the function.
pub(super) const FORMAT: [u8; 8] = *b"%ps\0\0\0\0\0";

// enum bpf_func_id
const KTIME_GET_NS: i32 = 5;
const PROBE_READ_KERNEL: i32 = 113;
const RINGBUF_OUTPUT: i32 = 130;
const SNPRINTF: i32 = 165;
/// A new record wakes no reader.
const BPF_RB_NO_WAKEUP: i32 = 1;
/// The src of the instruction that loads the address of a map, and of an array's value.
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_PSEUDO_MAP_VALUE: u8 = 2;
/// The low bit of a dst_entry pointer marks an uncounted reference: SKB_DST_NOREF.
const PTRMASK: i32 = -8;

/// A register: r0 to r10.
type Register = u8;
const R0: Register = 0;
const R1: Register = 1;
const R2: Register = 2;
const R3: Register = 3;
const R4: Register = 4;
const R5: Register = 5;
/// The tracepoint's arguments: the packet, the caller, the reason.
const CONTEXT: Register = 6;
const SKB: Register = 7;
/// The last value read.
const VALUE: Register = 8;
/// The network namespace; later the offset of the network header.
const NET: Register = 9;
const NETWORK_HEADER: Register = 9;
/// The end of the stack.
const STACK: Register = 10;

/// The record's place on the stack, and the scratch space next to it.
const NOTE: i16 = -(note::LENGTH as i16);
const SCRATCH: i16 = NOTE - 8;

/// The program for a kernel, as instructions of eight bytes.
pub(super) fn program(kernel: &Offsets, maps: Maps) -> Vec<[u8; 8]> {
    let mut p = Assembler::default();
    let part = |at: usize| NOTE + at as i16;
    p.copy(CONTEXT, R1);
    p.load(R1, CONTEXT, 16);
    let not_for_it = kernel.otherhost.map(|reason| p.jump(IF, R1, reason as i32));
    p.load(SKB, CONTEXT, 0);

    // The namespace is that of its device. A packet in TCP has no device, but still a
    // route.
    p.follow(SKB, kernel.skb_dev);
    let has_device = p.jump(IF_NOT, VALUE, 0);
    p.follow(SKB, kernel.skb_refdst);
    p.and(VALUE, PTRMASK);
    let nobodys = p.jump(IF, VALUE, 0);
    p.follow(VALUE, kernel.dst_dev);
    p.land(has_device);
    p.follow(VALUE, kernel.dev_net);
    p.copy(NET, VALUE);
    p.follow(NET, kernel.net_user_ns);
    p.store_zero(SCRATCH);
    p.read(SCRATCH, 4, VALUE, kernel.user_ns_inum);
    p.load(VALUE, STACK, SCRATCH);
    p.map(R1, BPF_PSEUDO_MAP_VALUE, maps.settings);
    p.load(R1, R1, 0);
    let anothers = p.jump_unless_equal(VALUE, R1);

    // The verifier requires that the whole record is written.
    (0..note::PACKET).step_by(8).for_each(|at| p.store_zero(part(at)));
    p.read(part(note::NAMESPACE), 4, NET, kernel.net_inum);
    p.read(part(note::PROTOCOL), 2, SKB, kernel.skb_protocol);
    p.load(R1, CONTEXT, 8);
    p.store(part(note::LOCATION), R1);
    p.load(R1, CONTEXT, 16);
    p.store_word(part(note::REASON), R1);
    p.call(KTIME_GET_NS);
    p.store(part(note::AT), R0);
    p.store_zero(SCRATCH);
    p.read(SCRATCH, 2, SKB, kernel.skb_network_header);
    p.load(NETWORK_HEADER, STACK, SCRATCH);
    p.follow(SKB, kernel.skb_head);
    p.add(VALUE, NETWORK_HEADER);
    p.read(part(note::PACKET), PACKET, VALUE, 0);
    p.on_stack(R1, part(note::FUNCTION));
    p.set(R2, NAME as i32);
    p.map(R3, BPF_PSEUDO_MAP_VALUE, maps.format);
    p.on_stack(R4, part(note::LOCATION));
    p.set(R5, 8);
    p.call(SNPRINTF);

    p.map(R1, BPF_PSEUDO_MAP_FD, maps.notes);
    p.on_stack(R2, NOTE);
    p.set(R3, note::LENGTH as i32);
    p.set(R4, BPF_RB_NO_WAKEUP);
    p.call(RINGBUF_OUTPUT);
    let noted = p.jump(IF, R0, 0);
    p.map(R1, BPF_PSEUDO_MAP_VALUE, maps.settings);
    p.set(R2, 1);
    p.count(R1, 8, R2);

    for jump in [nobodys, anothers, noted].into_iter().chain(not_for_it) {
        p.land(jump);
    }
    p.set(R0, 0);
    p.exit();
    p.0
}

// BPF_JMP | BPF_JEQ and BPF_JMP | BPF_JNE, with a constant.
const IF: u8 = 0x15;
const IF_NOT: u8 = 0x55;

/// Emits instructions with their code, registers, offset and constant: `struct
/// bpf_insn`.
#[derive(Debug, Default)]
struct Assembler(Vec<[u8; 8]>);

/// A forward jump whose target is not known yet.
#[must_use]
struct Jump(usize);

impl Assembler {
    fn write(&mut self, code: u8, (to, from): (Register, Register), offset: i16, constant: i32) {
        let registers = if cfg!(target_endian = "big") { to << 4 | from } else { from << 4 | to };
        let mut instruction = [code, registers, 0, 0, 0, 0, 0, 0];
        instruction[2..4].copy_from_slice(&offset.to_ne_bytes());
        instruction[4..].copy_from_slice(&constant.to_ne_bytes());
        self.0.push(instruction);
    }

    fn set(&mut self, to: Register, constant: i32) {
        self.write(0xb7, (to, 0), 0, constant);
    }

    fn copy(&mut self, to: Register, from: Register) {
        self.write(0xbf, (to, from), 0, 0);
    }

    fn add(&mut self, to: Register, from: Register) {
        self.write(0x0f, (to, from), 0, 0);
    }

    fn add_constant(&mut self, to: Register, constant: i32) {
        self.write(0x07, (to, 0), 0, constant);
    }

    fn and(&mut self, to: Register, constant: i32) {
        self.write(0x57, (to, 0), 0, constant);
    }

    fn load(&mut self, to: Register, from: Register, offset: i16) {
        self.write(0x79, (to, from), offset, 0);
    }

    fn store(&mut self, on_stack: i16, from: Register) {
        self.write(0x7b, (STACK, from), on_stack, 0);
    }

    fn store_word(&mut self, on_stack: i16, from: Register) {
        self.write(0x63, (STACK, from), on_stack, 0);
    }

    fn store_zero(&mut self, on_stack: i16) {
        self.write(0x7a, (STACK, 0), on_stack, 0);
    }

    /// Adds to memory atomically.
    fn count(&mut self, at: Register, offset: i16, by: Register) {
        self.write(0xdb, (at, by), offset, 0);
    }

    fn on_stack(&mut self, to: Register, place: i16) {
        self.copy(to, STACK);
        self.add_constant(to, place.into());
    }

    /// Loads a map, or the address of an array's value: two instructions.
    fn map(&mut self, to: Register, pseudo: u8, descriptor: i32) {
        self.write(0x18, (to, pseudo), 0, descriptor);
        self.write(0, (0, 0), 0, 0);
    }

    fn call(&mut self, function: i32) {
        self.write(0x85, (0, 0), 0, function);
    }

    fn exit(&mut self) {
        self.write(0x95, (0, 0), 0, 0);
    }

    fn jump(&mut self, code: u8, register: Register, constant: i32) -> Jump {
        self.write(code, (register, 0), 0, constant);
        Jump(self.0.len() - 1)
    }

    fn jump_unless_equal(&mut self, one: Register, other: Register) -> Jump {
        self.write(0x5d, (one, other), 0, 0);
        Jump(self.0.len() - 1)
    }

    /// Makes this the target of a jump.
    fn land(&mut self, Jump(at): Jump) {
        let over = (self.0.len() - at - 1) as i16;
        self.0[at][2..4].copy_from_slice(&over.to_ne_bytes());
    }

    /// Reads kernel memory at a pointer; memory that cannot be read is zero.
    fn read(&mut self, to: i16, length: usize, pointer: Register, offset: u32) {
        self.on_stack(R1, to);
        self.set(R2, length as i32);
        self.copy(R3, pointer);
        self.add_constant(R3, offset as i32);
        self.call(PROBE_READ_KERNEL);
    }

    /// Reads the pointer stored at a pointer.
    fn follow(&mut self, pointer: Register, offset: u32) {
        self.read(SCRATCH, 8, pointer, offset);
        self.load(VALUE, STACK, SCRATCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: Offsets = Offsets {
        skb_dev: 16,
        skb_refdst: 88,
        skb_head: 200,
        skb_network_header: 180,
        skb_protocol: 176,
        dst_dev: 0,
        dev_net: 1264,
        net_inum: 120,
        net_user_ns: 88,
        user_ns_inum: 520,
        otherhost: Some(9),
    };
    const MAPS: Maps = Maps { settings: 3, format: 4, notes: 5 };

    fn offset(instruction: [u8; 8]) -> i16 {
        i16::from_ne_bytes([instruction[2], instruction[3]])
    }

    fn constant(instruction: [u8; 8]) -> i32 {
        i32::from_ne_bytes(instruction[4..].try_into().unwrap())
    }

    fn assembled(write: impl FnOnce(&mut Assembler)) -> Vec<[u8; 8]> {
        let mut assembler = Assembler::default();
        write(&mut assembler);
        assembler.0
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_struct_bpf_insn() {
        for (instruction, bytes) in [
            // Code, registers (source and destination), offset, constant.
            (assembled(|p| p.set(R1, -8)), [0xb7, 0x01, 0, 0, 0xf8, 0xff, 0xff, 0xff]), // r1 = -8
            (assembled(|p| p.copy(CONTEXT, R1)), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]),       // r6 = r1
            (assembled(|p| p.load(R1, CONTEXT, 16)), [0x79, 0x61, 16, 0, 0, 0, 0, 0]), // r1 = *(u64 *)(r6 + 16)
            (assembled(|p| p.store(-16, R0)), [0x7b, 0x0a, 0xf0, 0xff, 0, 0, 0, 0]), // *(u64 *)(r10 - 16) = r0
            (assembled(|p| p.and(VALUE, -8)), [0x57, 0x08, 0, 0, 0xf8, 0xff, 0xff, 0xff]), // r8 &= -8
            (assembled(|p| p.call(KTIME_GET_NS)), [0x85, 0, 0, 0, 5, 0, 0, 0]),      // call 5
            (assembled(Assembler::exit), [0x95, 0, 0, 0, 0, 0, 0, 0]),               // exit
        ] {
            assert_eq!(instruction, [bytes]);
        }
        // A map takes two instructions: r1 = 5 ll, with src 1.
        let map = assembled(|p| p.map(R1, BPF_PSEUDO_MAP_FD, 5));
        assert_eq!(map, [[0x18, 0x11, 0, 0, 5, 0, 0, 0], [0; 8]]);
    }

    #[test]
    fn a_jump_skips_what_was_written_before_its_target() {
        let program = assembled(|p| {
            let jump = p.jump(IF, R1, 7);
            p.set(R0, 1);
            p.set(R0, 2);
            p.land(jump);
            p.exit();
        });
        assert_eq!((offset(program[0]), constant(program[0])), (2, 7));
    }

    #[test]
    fn every_jump_but_one_ends_the_program() {
        let program = program(&OFFSETS, MAPS);
        let end = program.len() - 2;
        let is_jump = |code: u8| [IF, IF_NOT, 0x5d].contains(&code);
        let jumps = program.iter().enumerate().filter(|(_, instruction)| is_jump(instruction[0]));
        let targets: Vec<_> =
            jumps.map(|(at, jump)| at + 1 + usize::try_from(offset(*jump)).unwrap()).collect();
        assert_eq!(targets.iter().filter(|target| **target == end).count(), 4);
        // The other skips the route of a packet without a device.
        assert_eq!(targets.len(), 5);
        assert_eq!(program[end], assembled(|p| p.set(R0, 0))[0]);
        assert_eq!(program[end + 1][0], 0x95);
    }

    #[test]
    fn a_kernel_without_the_reason_for_other_hosts_compares_no_reason() {
        let with = program(&OFFSETS, MAPS);
        let without = program(&Offsets { otherhost: None, ..OFFSETS }, MAPS);
        assert_eq!(without.len(), with.len() - 1);
        let compares = |program: &[[u8; 8]]| program.iter().any(|i| i[0] == IF && constant(*i) == 9);
        assert!(compares(&with) && !compares(&without));
    }

    #[test]
    fn the_stack_of_512_bytes_suffices_and_the_whole_record_is_written() {
        // MAX_BPF_STACK in include/linux/filter.h.
        const { assert!(SCRATCH >= -512) };
        let program = program(&OFFSETS, MAPS);
        let zeroed: Vec<_> = program.iter().filter(|i| i[0] == 0x7a).map(|i| offset(*i)).collect();
        for at in (0..note::PACKET).step_by(8) {
            assert!(zeroed.contains(&(NOTE + at as i16)), "{at}");
        }
        // bpf_probe_read_kernel() writes the rest.
        let reads = |at: i16, length: usize| {
            let read = assembled(|p| p.read(at, length, VALUE, 0));
            program.windows(read.len()).any(|part| part == read)
        };
        assert!(reads(NOTE + note::PACKET as i16, PACKET));
        assert_eq!(note::PACKET + PACKET, note::LENGTH);
    }
}
