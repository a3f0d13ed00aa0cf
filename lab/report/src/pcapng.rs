//! A capture as a pcapng file: one interface per end of a link, timestamps in nanoseconds,
//! and comments on what happened to each packet.
//!
//! Reading: draft-ietf-opsawg-pcapng, "PCAP Now Generic (pcapng) Capture File
//! Format".

use std::io::{self, Write};

pub use faultlab_explain::copies::Frames;
use faultlab_explain::remarks::{Remarked, remarks};
use faultlab_net::capture::Capture;

/// "Section Header Block", and its byte-order magic.
const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// "Interface Description Block".
const INTERFACE: u32 = 1;
/// "Enhanced Packet Block".
const PACKET: u32 = 6;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Option codes; those from 2 on depend on the type of the block.
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_PROGRAM: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
/// "Bits 0-1: inbound / outbound packet", `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Writes the selected frames of a capture. `about` describes it in a comment of the
/// section.
///
/// # Errors
/// Errors of the writer.
pub fn write(capture: &Capture, frames: Frames, about: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut section = Block::new(SECTION);
    section.bytes(&BYTE_ORDER.to_le_bytes());
    // Version 1.0, and an unspecified section length.
    section.bytes(&[1, 0, 0, 0]);
    section.bytes(&u64::MAX.to_le_bytes());
    section.option(COMMENT, about.as_bytes());
    section.option(COMMENT, described(frames).as_bytes());
    if capture.lost > 0 {
        section.option(COMMENT, format!("{} more frames had no room", capture.lost).as_bytes());
    }
    section.option(SECTION_PROGRAM, concat!("faultlab ", env!("CARGO_PKG_VERSION")).as_bytes());
    section.end(out)?;

    for end in &capture.ends {
        let mut interface = Block::new(INTERFACE);
        interface.bytes(&ETHERNET.to_le_bytes());
        // Two reserved bytes, and no snapshot length.
        interface.bytes(&[0; 6]);
        let name = format!("{} {}", end.host, end.interface);
        interface.option(INTERFACE_NAME, name.as_bytes());
        if !end.addresses.is_empty() {
            let words: Vec<_> =
                std::iter::once(name).chain(end.addresses.iter().map(ToString::to_string)).collect();
            interface.option(INTERFACE_DESCRIPTION, words.join(", ").as_bytes());
        }
        // Nanoseconds: 10^-9.
        interface.option(INTERFACE_RESOLUTION, &[9]);
        interface.end(out)?;
    }

    for Remarked { frame, remarks } in remarks(capture, frames) {
        let frame = &capture.frames[frame];
        let mut packet = Block::new(PACKET);
        let nanoseconds = u64::try_from(frame.at.as_nanos()).unwrap_or(u64::MAX).to_be_bytes();
        let half = |at: usize| u32::from_be_bytes(nanoseconds[at..at + 4].try_into().expect("four bytes"));
        let number = u32::try_from(frame.end).unwrap_or(u32::MAX);
        let kept = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        for word in [number, half(0), half(4), kept, frame.length.max(kept)] {
            packet.bytes(&word.to_le_bytes());
        }
        packet.bytes(&frame.bytes);
        packet.pad();
        let flags = if frame.outgoing { OUTBOUND } else { INBOUND };
        packet.option(PACKET_FLAGS, &flags.to_le_bytes());
        for comment in &remarks {
            packet.option(COMMENT, comment.as_bytes());
        }
        packet.end(out)?;
    }
    Ok(())
}

/// Describes the selected frames in a comment of the section.
fn described(frames: Frames) -> &'static str {
    match frames {
        Frames::AsSent => {
            "each packet once, where it was sent; again where a host translated its addresses, and where it \
             arrived if the wire changed or made it; --pcap-both-ends writes it at both ends of every link"
        }
        Frames::BothEnds => "each packet at both ends of every link",
    }
}

/// A block: type, total length, body, and the total length again.
struct Block {
    kind: u32,
    body: Vec<u8>,
}

impl Block {
    fn new(kind: u32) -> Self {
        Self { kind, body: vec![] }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.body.extend(bytes);
    }

    /// Pads to a multiple of four bytes.
    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.bytes(&code.to_le_bytes());
        self.bytes(&length.to_le_bytes());
        self.bytes(&value[..length.into()]);
        self.pad();
    }

    fn end(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.option(END_OF_OPTIONS, &[]);
        let length = u32::try_from(self.body.len() + 12).map_err(io::Error::other)?.to_le_bytes();
        out.write_all(&self.kind.to_le_bytes())?;
        out.write_all(&length)?;
        out.write_all(&self.body)?;
        out.write_all(&length)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use faultlab_net::capture::{End, Frame};

    #[test]
    fn blocks_are_as_long_as_they_say() {
        let end =
            |name: &str| End { host: name.into(), interface: "eth0".into(), addresses: vec![], peer: None };
        let frame = |n: usize| Frame {
            at: Duration::new(5_000_000_000, 7),
            end: n % 2,
            outgoing: n.is_multiple_of(2),
            length: 60,
            bytes: vec![0xab; 13 + n],
            comment: (n == 1).then(|| "dropped here".into()),
            carried: None,
        };
        let capture = Capture {
            ends: vec![end("a"), end("b")],
            frames: (0..4).map(frame).collect(),
            lost: 3,
            ..Capture::default()
        };
        let mut file = vec![];
        write(&capture, Frames::BothEnds, "a test", &mut file).unwrap();
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let (mut at, mut kinds) = (0, vec![]);
        while at < file.len() {
            let length = word(at + 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(at + length - 4) as usize, length);
            kinds.push(word(at));
            at += length;
        }
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, PACKET, PACKET, PACKET, PACKET]);
    }
}
