//! A suite of a distribution, and the packages that make up its kernel.
//!
//! Debian's metapackage `linux-image-cloud-amd64` depends on the newest image package
//! of its suite. Up to 6.18 that package has everything. From 6.19 on it depends on
//! linux-binary-* with the kernel, linux-modules-* with the modules, and linux-base-*
//! with the configuration.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use faultlab_base::error::{Error, Result};

/// The maximum length of a suite's name, a package's name or a version. Real ones have
/// less than half of it. A suite's name and a version fit into a file name together.
const WORD_MAX: usize = 120;

/// `debian:SUITE`, or `debian:SUITE@VERSION` for one build of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// The suite's name on the mirror: bookworm, trixie-backports, sid.
    pub name: String,
    /// The version of the package; `None` for the newest.
    pub version: Option<String>,
}

impl Suite {
    /// Whether `text` names a suite rather than a file.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.split_once(':').is_some_and(|(distribution, _)| {
            !distribution.is_empty() && distribution.chars().all(|c| c.is_ascii_lowercase())
        })
    }

    /// Whether it is on the distribution's security mirror.
    #[must_use]
    pub fn is_security(&self) -> bool {
        self.name.ends_with("-security")
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "debian:{}", self.name)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Lab(format!("{text}: {why}"));
        let (distribution, rest) = text.split_once(':').ok_or_else(|| wrong("no DISTRIBUTION:SUITE"))?;
        if distribution != "debian" {
            return Err(wrong("suites of debian only; of others, add the .deb files or the image"));
        }
        let (name, version) = rest.split_once('@').map_or((rest, None), |(name, v)| (name, Some(v)));
        if !plain(name, "-") {
            return Err(wrong("no name of a suite, such as debian:bookworm"));
        }
        if version.is_some_and(|version| !is_version(version)) {
            return Err(wrong("no version of a package, such as 6.1.170-3"));
        }
        Ok(Self { name: name.to_owned(), version: version.map(str::to_owned) })
    }
}

fn plain(text: &str, more: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= WORD_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// deb-version(7): alphanumerics and . + - : ~
fn is_version(text: &str) -> bool {
    plain(text, ".+-:~")
}

/// deb-control(5), Package: alphanumerics and + - .
fn is_package_name(text: &str) -> bool {
    plain(text, "+-.")
}

/// A package of a suite, as its mirror describes it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The names of the packages that it depends on; of alternatives only the first.
    pub depends: Vec<String>,
    /// The size of its .deb, in bytes.
    pub size: u64,
}

/// Parses the stanzas that `apt-cache show` prints. The mirror is untrusted:
/// stanzas with an invalid name or version are skipped.
#[must_use]
pub fn parse_records(text: &str) -> Vec<Record> {
    let good = |record: &Record| is_package_name(&record.name) && is_version(&record.version);
    text.split("\n\n").map(parse_record).filter(good).collect()
}

fn parse_record(stanza: &str) -> Record {
    let mut record = Record::default();
    for (field, value) in stanza.lines().filter_map(|line| line.split_once(": ")) {
        match field {
            "Package" => value.clone_into(&mut record.name),
            "Version" => value.clone_into(&mut record.version),
            "Size" => record.size = value.parse().unwrap_or(0),
            "Depends" => {
                record.depends = value
                    .split(',')
                    .filter_map(|d| d.split_whitespace().next())
                    .filter(|name| is_package_name(name))
                    .map(str::to_owned)
                    .collect();
            }
            _ => {}
        }
    }
    record
}

/// Whether a package of this name can be part of a kernel: an image, the metapackage of
/// the newest image, or one of the packages of a split image.
#[must_use]
pub fn is_kernel_package(name: &str) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"].iter().any(|p| name.starts_with(p))
        && name.ends_with("amd64")
}

/// Whether a release follows: linux-image-6.1.0-50-cloud-amd64, not
/// linux-image-cloud-amd64.
fn of_a_release(name: &str) -> bool {
    is_kernel_package(name)
        && name.splitn(3, '-').nth(2).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
}

/// Picks the packages of a suite that make up its newest kernel, or the one of
/// `version`. Debian's cloud flavour, which has networking and little else, is
/// preferred to the general one.
///
/// # Errors
/// One sentence: there is no such kernel; with the versions that the mirror has.
pub fn choose<'a>(suite: &Suite, records: &'a [Record]) -> Result<Vec<&'a Record>> {
    let named = |name: &str| records.iter().find(|r| r.name == name);
    let image = match &suite.version {
        None => ["linux-image-cloud-amd64", "linux-image-amd64"].into_iter().find_map(|meta| {
            let depends = &named(meta)?.depends;
            depends.iter().filter(|d| d.starts_with("linux-image-") && of_a_release(d)).find_map(|d| named(d))
        }),
        Some(version) => ["-cloud-amd64", "-amd64"]
            .into_iter()
            .find_map(|flavour| images(records).find(|r| r.version == *version && r.name.ends_with(flavour))),
    };
    let Some(image) = image else {
        let versions: BTreeSet<_> = images(records).map(|r| r.version.as_str()).collect();
        let versions = match versions.len() {
            0 => "no kernel for amd64".to_owned(),
            _ => versions.into_iter().collect::<Vec<_>>().join(", "),
        };
        return Err(Error::Lab(format!(
            "{suite}: the mirror does not have it; its {} has {versions}",
            suite.name
        )));
    };
    let mut parts = vec![image];
    let mut at = 0;
    while let Some(part) = parts.get(at) {
        for name in part.depends.iter().filter(|name| of_a_release(name)) {
            let of_same_build = |r: &&Record| r.name == *name && r.version == image.version;
            let Some(part) = records.iter().find(of_same_build) else {
                // Mirrors may have dropped the configuration of an old build. It is not
                // needed.
                if name.starts_with("linux-base-") {
                    continue;
                }
                return Err(Error::Lab(format!("{suite}: the mirror has no {name} {}", image.version)));
            };
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        at += 1;
    }
    Ok(parts)
}

/// The image packages of releases, without those of the real-time flavour.
fn images(records: &[Record]) -> impl Iterator<Item = &Record> {
    records
        .iter()
        .filter(|r| r.name.starts_with("linux-image-") && of_a_release(&r.name) && !r.name.contains("-rt-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
Package: linux-image-cloud-amd64
Version: 7.2.13-1
Depends: linux-base-cloud-amd64 (= 7.2.13-1), linux-image-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)

Package: linux-image-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Size: 1916

Package: linux-binary-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Size: 13717736

Package: linux-modules-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: kmod, linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Size: 23451956

Package: linux-base-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Size: 417436

Package: linux-image-6.18.15+deb13-cloud-amd64
Version: 6.18.15-1
Depends: kmod, linux-base-6.18.15+deb13-cloud-amd64 (= 6.18.15-1)
Size: 30000000

Package: linux-image-6.18.15+deb13-rt-amd64
Version: 6.18.15-2
";

    #[test]
    fn a_split_image_is_put_together() {
        let records = parse_records(SHOWN);
        let parts = choose(&"debian:sid".parse().unwrap(), &records).unwrap();
        let names: Vec<_> = parts.iter().map(|r| r.name.split('-').nth(1).unwrap()).collect();
        assert_eq!(names, ["image", "base", "binary", "modules"]);
    }

    #[test]
    fn an_older_build_is_found_by_its_version() {
        let records = parse_records(SHOWN);
        let parts = choose(&"debian:sid@6.18.15-1".parse().unwrap(), &records).unwrap();
        let names: Vec<_> = parts.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["linux-image-6.18.15+deb13-cloud-amd64"]);
        let error = choose(&"debian:sid@6.18.15-2".parse().unwrap(), &records).unwrap_err().to_string();
        assert!(error.ends_with("its sid has 6.18.15-1, 7.2.13-1"), "{error}");
    }

    #[test]
    fn a_name_is_read_and_written_alike() {
        for text in ["debian:bookworm", "debian:bookworm-backports@6.12.57-1~bpo12+1"] {
            assert_eq!(text.parse::<Suite>().unwrap().to_string(), text);
        }
        let long = format!("debian:{}", "a".repeat(200));
        for text in
            ["bookworm", "ubuntu:noble", "debian:", "debian:../x", "debian:sid@1/../2", "debian:sid@", &long]
        {
            assert!(text.parse::<Suite>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_has_a_name_and_a_version() {
        let shown = |name: &str, version: &str, depends: &str| {
            parse_records(&format!("Package: {name}\nVersion: {version}\nDepends: {depends}\nSize: x\n"))
        };
        let records = shown("linux-image-6.1.0-amd64", "6.1.170-3", "kmod (>= 1), \x1b[2J, linux-base-a | b");
        assert_eq!(records[0].depends, ["kmod", "linux-base-a"]);
        for (name, version) in [
            ("linux-\x1b[2J-amd64", "6.1"),
            ("linux-a/b", "6.1"),
            ("linux-a", "6.1\x1b[2J"),
            ("linux-a", "6/1"),
            ("-q", "6.1"),
        ] {
            assert!(shown(name, version, "").is_empty(), "{name:?} {version:?}");
        }
    }
}
