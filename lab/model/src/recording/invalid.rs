//! What conntrack logged about a segment.

use faultlab_net::wire::segment::Header;

/// A segment that conntrack logged, with the log message.
///
/// Most of these segments are INVALID. conntrack also logs some that it ignores and
/// leaves in their flow; from 6.1 on, segments below a window are among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLog {
    /// The headers of the segment, as conntrack received them.
    pub header: Header,
    /// The length of its payload, in bytes.
    pub length: usize,
    /// The log message.
    pub words: String,
}
