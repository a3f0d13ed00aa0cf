//! `--report DIR`: one HTML file.

use std::path::{Component, Path, PathBuf};

use super::files::Folder;
use super::options::Options;
use super::{Stop, pcap};
use faultlab_engine::catalogue::Catalogue;
use faultlab_model::outcome::Outcome;
use faultlab_model::scenario::Clock;
use faultlab_report::html::{self, Drawings, Page};
use faultlab_report::matrix::Column;

/// Writes the report as `index.html` into `folder`.
pub(super) fn write(
    catalogue: &Catalogue,
    options: &Options,
    columns: &[Column],
    drawings: &Drawings,
    folder: &Path,
) -> Result<(), Stop> {
    let directory = Folder::make(folder)?;
    let pcaps = options.pcap.as_deref().map(|to| relative(folder, to));
    let page = Page {
        columns,
        drawings,
        scenario: &|name| catalogue.scenarios.iter().find(|s| s.card.name == name).map(|s| &s.fault),
        command: &|outcome| command(options, outcome),
        pcap: &|outcome, arm| {
            let path = pcaps.as_ref()?.join(pcap::file(outcome, arm));
            Some(path.to_string_lossy().into_owned())
        },
    };
    Ok(directory.write("index.html", |out| out.write_all(html::html(&page).as_bytes()))?)
}

/// The command line that reproduces an outcome.
pub(super) fn command(options: &Options, outcome: &Outcome) -> String {
    let mut words = vec!["faultlab".to_owned(), "run".to_owned(), outcome.scenario.to_string()];
    if let Some(id) = &outcome.kernel_id {
        words.extend(["--kernel".to_owned(), id.to_string()]);
        if outcome.clock == Clock::Real {
            words.push("--real-time".to_owned());
        }
        words.extend(["--seed".to_owned(), options.seed.to_string()]);
    }
    words.extend(options.only.iter().flat_map(|arm| ["--arm".to_owned(), arm.clone()]));
    for (key, value) in &options.set {
        if outcome.settings.get(key).is_some() {
            words.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
    }
    if options.without_cause {
        words.push("--without-cause".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.:/@+,~".contains(c);
    let quoted = |word: String| {
        if word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The relative path from one directory to another. Both must exist, so that symbolic links
/// can be resolved.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (from, to) = (real(from), real(to));
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_linked_from_where_the_report_is() {
        for (from, to, way) in
            [("/a/b", "/a/c/d", "../c/d"), ("/a", "/a/c", "c"), ("/a", "/a", ""), ("/a/b", "/c", "../../c")]
        {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
        }
    }
}
