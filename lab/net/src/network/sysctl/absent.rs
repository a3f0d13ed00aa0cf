//! Why a namespace has no sysctl of a name: the kernel lacks what it belongs to, or
//! nobody knows such a sysctl.
//!
//! A feature that is not built in or not loaded lacks all its sysctls. If its others
//! are there, the key is wrong, or only some kernels have it, which an author has to
//! say.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::namespace::Namespace;
use faultlab_base::error::Error;

/// The error for a key whose file does not exist.
pub(super) fn absent(namespace: &Namespace, key: &str, path: &Path) -> Error {
    error(namespace.name(), key, path, &namespace.enter(|| names_beside(path)))
}

/// The error for a key that the whole kernel lacks.
pub(super) fn absent_kernel_wide(place: &str, key: &str, path: &Path) -> Error {
    error(place, key, path, &names_beside(path))
}

fn error(place: &str, key: &str, path: &Path, others: &[OsString]) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kin: Vec<_> = others
        .iter()
        .map(|other| other.to_string_lossy())
        .filter(|other| other.starts_with(feature(&name)) || strsim::damerau_levenshtein(&name, other) <= 2)
        .collect();
    if kin.is_empty() {
        return Error::missing(key, format!("{place} has no such sysctl on this kernel"));
    }
    let near = kin.iter().map(|other| (strsim::damerau_levenshtein(&name, other), other)).min();
    let hint = match (near, key.rsplit_once('.')) {
        (Some((distance, other)), Some((directory, _))) if distance <= 3 => {
            format!("did you mean {directory}.{other}?")
        }
        _ => "use sysctl_where_known for one that only some kernels have".to_owned(),
    };
    Error::Lab(format!("{place}: the kernel has others of its kind, but no sysctl {key}; {hint}"))
}

/// The start of the names of all sysctls of a feature: `tcp_`, and `nf_conntrack_`,
/// because nf_log's are there without conntrack's.
fn feature(name: &str) -> &str {
    let words = if name.starts_with("nf_") { 2 } else { 1 };
    let end = name.match_indices('_').nth(words - 1);
    end.map_or(name, |(at, _)| &name[..=at])
}

fn names_beside(path: &Path) -> Vec<OsString> {
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, others: &[&str]) -> Error {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let others: Vec<_> = others.iter().map(Into::into).collect();
        error("node", key, &path, &others)
    }

    #[test]
    fn a_key_that_no_kernel_has_is_an_error_of_its_author() {
        let tcp = ["tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_tw_reuse", "ip_forward"];
        let Error::Lab(sentence) = of("net.ipv4.tcp_keepalive_tme", &tcp) else { panic!("not missing") };
        assert_eq!(
            sentence,
            "node: the kernel has others of its kind, but no sysctl net.ipv4.tcp_keepalive_tme; did you mean \
             net.ipv4.tcp_keepalive_time?"
        );
        assert!(
            of("net.ipv4.tpc_tw_reuse", &tcp).to_string().ends_with("did you mean net.ipv4.tcp_tw_reuse?")
        );
        let Error::Lab(sentence) = of("net.ipv4.tcp_frobnicate", &tcp) else { panic!("not missing") };
        assert!(
            sentence.ends_with("use sysctl_where_known for one that only some kernels have"),
            "{sentence}"
        );
    }

    #[test]
    fn a_feature_that_the_kernel_lacks_is_missing() {
        for (key, others) in [
            ("net.netfilter.nf_conntrack_max", &["nf_log_all_netns"][..]),
            ("net.ipv6.bindv6only", &[]),
            ("net.core.netdev_max_backlog", &["somaxconn"]),
        ] {
            assert!(matches!(of(key, others), Error::Missing(_)), "{key}");
        }
    }
}
