//! The frames on the second serial port, with checksums.
//!
//! ```text
//! 01 'F' 'L' 02 | kind | length (4, LE) | crc of the 5 before (4, LE) | body | crc of the body (4, LE)
//! ```
//!
//! An emulated serial line does not corrupt data, but a kernel or a firmware may write
//! to it too. A reader that finds no frame skips a byte and tries again, so noise
//! destroys only the frame that it interrupts. The head has its own checksum:
//! otherwise noise that looks like a head would make the reader wait for bytes that
//! never arrive.
//!
//! A guest is not trusted. In a stream of valid heads with invalid bodies every byte
//! would be hashed again for each head. After [`VAIN_MAX`] bytes of noise and failed
//! hashes the reader stops, so its work is linear in the size of its input.

/// The first bytes of every frame; they do not occur in text.
const MAGIC: [u8; 4] = [0x01, b'F', b'L', 0x02];

/// Magic, kind, length and their checksum.
const HEAD: usize = 4 + 1 + 4 + 4;

/// The maximum length of a body, 16 MiB: more than a capture of any scenario.
pub const BODY_MAX: usize = 16 << 20;

/// The maximum number of bytes that are skipped as noise, or hashed for a body with a
/// wrong checksum: four frames of maximum length.
pub const VAIN_MAX: u64 = 4 * BODY_MAX as u64;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The kind of message; this module does not interpret it.
    pub kind: u8,
    /// The body.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame with this kind and body.
    pub fn new(kind: u8, body: impl Into<Vec<u8>>) -> Self {
        Self { kind, body: body.into() }
    }

    /// The frame's bytes on the wire.
    ///
    /// # Panics
    /// When the body is longer than [`BODY_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.body.len() <= BODY_MAX, "a frame of {} bytes", self.body.len());
        let length = u32::try_from(self.body.len()).expect("BODY_MAX fits 32 bits");
        let mut wire = Vec::with_capacity(HEAD + self.body.len() + 4);
        wire.extend(MAGIC);
        wire.push(self.kind);
        wire.extend(length.to_le_bytes());
        wire.extend(hash(&wire[4..9]).to_le_bytes());
        wire.extend(&self.body);
        wire.extend(hash(&self.body).to_le_bytes());
        wire
    }
}

/// Finds the frames in a stream of bytes.
///
/// Holds at most the bytes of one frame and the last piece that was pushed.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where the next frame may start.
    at: usize,
    noise: u64,
    hashed: u64,
    hashed_in_vain: u64,
}

/// What starts at a position of the stream.
enum Found {
    Frame(Frame, usize),
    /// Possibly the start of a frame: more bytes are needed.
    Unfinished,
    Noise,
    /// A head, and a body of this length with a wrong checksum.
    Broken(usize),
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        if self.is_spent() {
            return vec![];
        }
        self.bytes.extend(bytes);
        self.take(false)
    }

    /// Ends the stream: looks for complete frames after a truncated one.
    pub fn finish(&mut self) -> Vec<Frame> {
        self.take(true)
    }

    /// The number of bytes that did not belong to a complete frame.
    #[must_use]
    pub fn noise(&self) -> u64 {
        self.noise
    }

    /// Whether [`VAIN_MAX`] is exceeded: then nothing more is read.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.noise + self.hashed_in_vain > VAIN_MAX
    }

    fn take(&mut self, ended: bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while self.at < self.bytes.len() && !self.is_spent() {
            match self.find() {
                Found::Frame(frame, length) => {
                    frames.push(frame);
                    self.at += length;
                    continue;
                }
                Found::Unfinished if !ended => break,
                Found::Unfinished | Found::Noise => {}
                Found::Broken(length) => self.hashed_in_vain += length as u64,
            }
            self.noise += 1;
            self.at += 1;
        }
        if self.is_spent() {
            self.bytes = Vec::new();
            self.at = 0;
        } else if self.at * 2 >= self.bytes.len() {
            // The rest is moved to the front only if it is shorter than what is
            // removed, so moves are linear in the size of the input.
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        frames
    }

    /// Looks for a frame at the start of the remaining bytes, which are not empty.
    fn find(&mut self) -> Found {
        let bytes = &self.bytes[self.at..];
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Found::Noise;
        }
        let Some(head) = bytes.get(..HEAD) else { return Found::Unfinished };
        self.hashed += 5;
        if hash(&head[4..9]) != le32(&head[9..]) {
            return Found::Noise;
        }
        let length = le32(&head[5..9]) as usize;
        if length > BODY_MAX {
            return Found::Noise;
        }
        let Some(rest) = bytes.get(HEAD..HEAD + length + 4) else { return Found::Unfinished };
        let (body, sum) = rest.split_at(length);
        self.hashed += length as u64;
        if hash(body) != le32(sum) {
            return Found::Broken(length);
        }
        Found::Frame(Frame::new(head[4], body), HEAD + length + 4)
    }
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// IEEE 802.3, section 3.2.9.
fn hash(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_well_known_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_frame_that_comes_in_single_bytes_is_found() {
        let frame = Frame::new(7, "outcome");
        let mut decoder = Decoder::new();
        let found: Vec<Frame> = frame.encode().iter().flat_map(|byte| decoder.push(&[*byte])).collect();
        assert_eq!(found, [frame]);
        assert_eq!(decoder.noise(), 0);
    }

    #[test]
    fn a_frame_that_lost_a_byte_costs_only_itself() {
        let (lost, kept) = (Frame::new(1, vec![0; 300]), Frame::new(2, "kept"));
        let mut wire = lost.encode();
        wire.remove(100);
        wire.extend(kept.encode());
        let mut decoder = Decoder::new();
        let mut found = decoder.push(&wire);
        found.extend(decoder.finish());
        assert_eq!(found, [kept]);
    }

    #[test]
    fn a_head_is_checked_before_its_length_is_believed() {
        let mut wire = Frame::new(1, "x").encode();
        wire[8] = 0x7f;
        wire.extend(Frame::new(2, "y").encode());
        assert_eq!(Decoder::new().push(&wire), [Frame::new(2, "y")]);
    }

    fn frames() -> impl Strategy<Value = Vec<(Vec<u8>, Frame)>> {
        let noise = prop::collection::vec(any::<u8>(), 0..40);
        let frame = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60));
        prop::collection::vec((noise, frame.prop_map(|(kind, body)| Frame { kind, body })), 0..8)
    }

    /// A valid head without a body.
    fn head(length: usize) -> Vec<u8> {
        let mut wire = Frame::new(1, vec![0; length]).encode();
        wire.truncate(HEAD);
        wire
    }

    /// How many bytes of a stream were hashed, and the most that were held at once.
    fn work(wire: &[u8], piece: usize) -> (u64, usize) {
        let mut decoder = Decoder::new();
        let mut held = 0;
        for bytes in wire.chunks(piece) {
            decoder.push(bytes);
            held = held.max(decoder.bytes.capacity());
        }
        decoder.finish();
        (decoder.hashed, held)
    }

    /// The limit of hashed bytes for an input of this size: a frame's head and body
    /// once, four bytes of noise with the head that they may start, and the waste
    /// allowed.
    fn work_max(sent: usize) -> u64 {
        2 * sent as u64 + VAIN_MAX + BODY_MAX as u64
    }

    #[test]
    fn heads_back_to_back_are_not_each_hashed_to_the_end() {
        // 17 MiB, in which every head claims 64 KiB: 85 GiB if all are hashed.
        let wire = head(64 << 10).repeat((17 << 20) / HEAD);
        let (hashed, held) = work(&wire, 4096);
        assert!(hashed <= work_max(wire.len()), "{hashed} bytes were hashed");
        assert!(held <= 1 << 20, "{held} bytes were held");
    }

    #[test]
    fn noise_without_end_is_read_no_more() {
        let mut decoder = Decoder::new();
        let noise = vec![MAGIC[0]; 1 << 20];
        while !decoder.is_spent() {
            assert_eq!(decoder.push(&noise), []);
        }
        let noticed = decoder.noise();
        assert!(noticed <= VAIN_MAX + 1);
        assert_eq!(decoder.push(&Frame::new(1, "late").encode()), []);
        assert_eq!((decoder.finish(), decoder.noise()), (vec![], noticed));
        assert!(decoder.bytes.is_empty());
    }

    #[test]
    fn a_broken_frame_of_the_greatest_length_costs_only_itself() {
        let kept = Frame::new(2, "kept");
        let mut wire = Frame::new(1, vec![0; BODY_MAX]).encode();
        wire[1000] ^= 1;
        wire.extend(kept.encode());
        let mut decoder = Decoder::new();
        let found: Vec<Frame> = wire.chunks(1 << 16).flat_map(|bytes| decoder.push(bytes)).collect();
        assert_eq!(found, [kept]);
    }

    /// A stream of heads, whole frames and noise in any order.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => (0usize..1 << 16, 1usize..200).prop_map(|(length, times)| head(length).repeat(times)),
            1 => prop::collection::vec(any::<u8>(), 0..300),
            1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(|body| Frame::new(1, body).encode()),
        ];
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn no_stream_is_more_than_linear_work(wire in hostile(), piece in 1usize..5000) {
            let (hashed, held) = work(&wire, piece);
            prop_assert!(hashed <= work_max(wire.len()), "{hashed} of {}", wire.len());
            // A body waits together with the bytes before it, in a vector that may
            // have doubled.
            prop_assert!(held <= 4 * ((1 << 16) + 5000), "{held}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, cut in 0usize..64) {
            let mut decoder = Decoder::new();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            decoder.push(first);
            decoder.push(second);
            decoder.finish();
            prop_assert!(decoder.bytes.is_empty());
        }

        #[test]
        fn frames_survive_noise_between_them(sent in frames(), piece in 1usize..50) {
            let mut wire = Vec::new();
            for (noise, frame) in &sent {
                wire.extend(noise);
                wire.extend(frame.encode());
            }
            let mut decoder = Decoder::new();
            let mut found: Vec<Frame> = wire.chunks(piece).flat_map(|bytes| decoder.push(bytes)).collect();
            found.extend(decoder.finish());
            let expected: Vec<Frame> = sent.into_iter().map(|(_, frame)| frame).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_changed_byte_never_yields_another_frame(body: Vec<u8>, at: prop::sample::Index, with in 1u8..) {
            let frame = Frame::new(3, body);
            let mut wire = frame.encode();
            let at = at.index(wire.len());
            wire[at] ^= with;
            let mut decoder = Decoder::new();
            let mut found = decoder.push(&wire);
            found.extend(decoder.finish());
            prop_assert_eq!(found, []);
        }
    }
}
