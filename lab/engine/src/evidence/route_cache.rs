//! The number of routes that the kernel has cached.
//!
//! Reading list: net/ipv4/route.c `rt_cpu_seq_show`; a cached route holds a reference
//! to its device. The number covers the whole kernel, in every namespace.

use std::fs;

use faultlab_base::error::{Error, Result};
use faultlab_net::network::namespace::of_this_thread;

/// One line of names, then one line of numbers per processor.
const FILE: &str = "net/stat/rt_cache";

/// The number of cached IPv4 routes of this kernel: `entries` in
/// /proc/net/stat/rt_cache.
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn entries() -> Result<u64> {
    let text = fs::read_to_string(of_this_thread(FILE))
        .map_err(|e| Error::kernel("kernel", format!("read /proc/{FILE}"), e))?;
    parse(&text).ok_or_else(|| Error::Lab(format!("/proc/{FILE}: no entries in {text:?}")))
}

/// The first number of the first processor, which is the total.
fn parse(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let column = lines.next()?.split_whitespace().position(|name| name == "entries")?;
    u64::from_str_radix(lines.next()?.split_whitespace().nth(column)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_hexadecimal() {
        let text =
            "entries  in_hit   in_slow_tot\n0000006d 00000000 00000123 \n0000006d 00000000 00000001 \n";
        assert_eq!(parse(text), Some(0x6d));
        assert_eq!(parse("entries  in_hit\n"), None);
        assert_eq!(parse("in_hit\n00000001\n"), None);
    }

    #[test]
    fn this_kernel_says_it() {
        assert!(entries().is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(entries|in_hit|[0-9a-f]{0,20}|[ \n]){0,12}") {
            let _ = parse(&text);
        }
    }
}
