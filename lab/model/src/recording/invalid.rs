//! Log messages of conntrack about segments (nf_conntrack_log_invalid).

use faultlab_net::wire::segment::Header;

/// A segment that conntrack logged, with the log message.
///
/// Most of these segments are INVALID. conntrack also logs segments that it ignores
/// without making them INVALID: from 6.1 on, also those below the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLog {
    /// The headers of the segment, as conntrack received them.
    pub header: Header,
    /// The length of its payload, in bytes.
    pub length: usize,
    /// The log message.
    pub words: String,
}
