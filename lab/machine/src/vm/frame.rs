//! The framed, checksummed form of what goes over the second serial port.
//!
//! ```text
//! 01 'F' 'L' 02 | kind | length (4, LE) | crc of the 5 before (4, LE) | body | crc of the body (4, LE)
//! ```
//!
//! A serial line has no errors of its own, but a kernel or a firmware may
//! write to it. A reader that finds anything else than a frame skips a byte
//! and looks again, so noise costs the frame that it hit and no other. The
//! head has a checksum of its own: without it, noise that looks like a head
//! would make the reader wait for bytes that never come.

/// What every frame opens with; no text contains it.
const MAGIC: [u8; 4] = [0x01, b'F', b'L', 0x02];

/// Magic, kind, length and their checksum.
const HEAD: usize = 4 + 1 + 4 + 4;

/// The longest body, 16 MiB: more than a capture of any scenario.
pub const BODY_MAX: usize = 16 << 20;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; the two ends agree on it, this file does not care.
    pub kind: u8,
    /// The message.
    pub body: Vec<u8>,
}

impl Frame {
    /// A message of this kind.
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
        wire.extend(crc32(&wire[4..9]).to_le_bytes());
        wire.extend(&self.body);
        wire.extend(crc32(&self.body).to_le_bytes());
        wire
    }
}

/// Finds the frames in a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where the next frame may start.
    at: usize,
    noise: u64,
}

/// What the bytes at one place are.
enum Found {
    Frame(Frame, usize),
    /// Perhaps the start of a frame: more bytes will tell.
    Unfinished,
    Noise,
}

impl Decoder {
    /// A reader of a stream that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.bytes.extend(bytes);
        self.take(false)
    }

    /// The stream has ended: looks for whole frames behind one that was cut.
    pub fn finish(&mut self) -> Vec<Frame> {
        self.take(true)
    }

    /// How many bytes were no part of a whole frame.
    #[must_use]
    pub fn noise(&self) -> u64 {
        self.noise
    }

    fn take(&mut self, ended: bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while self.at < self.bytes.len() {
            match find(&self.bytes[self.at..]) {
                Found::Frame(frame, length) => {
                    frames.push(frame);
                    self.at += length;
                }
                Found::Unfinished if !ended => break,
                Found::Unfinished | Found::Noise => {
                    self.noise += 1;
                    self.at += 1;
                }
            }
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        frames
    }
}

/// What `bytes`, which are not empty, start with.
fn find(bytes: &[u8]) -> Found {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Found::Noise;
    }
    let Some(head) = bytes.get(..HEAD) else { return Found::Unfinished };
    if crc32(&head[4..9]) != le32(&head[9..]) {
        return Found::Noise;
    }
    let length = le32(&head[5..9]) as usize;
    if length > BODY_MAX {
        return Found::Noise;
    }
    let Some(rest) = bytes.get(HEAD..HEAD + length + 4) else { return Found::Unfinished };
    let (body, sum) = rest.split_at(length);
    if crc32(body) != le32(sum) {
        return Found::Noise;
    }
    Found::Frame(Frame::new(head[4], body), HEAD + length + 4)
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// IEEE 802.3, section 3.2.9, bit-reflected: polynomial 0xedb88320.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u32;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_well_known_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
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
