//! `faultlab kernel`: the store of kernel images.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;

use super::Stop;
use crate::{terminal, text};
use faultlab_kernels::{Entry, Progress, Source, Store};
use faultlab_report::{Style, progress};

/// What can be done with the store.
#[derive(Debug, Subcommand)]
pub enum Kernel {
    /// Add a kernel: debian:SUITE, debian:SUITE@VERSION, .deb files, or a bzImage
    Add {
        /// `debian:bookworm`, `debian:bookworm@6.1.170-3`, FILE.deb..., or BZIMAGE
        #[arg(required = true, value_name = "WHAT")]
        what: Vec<String>,
        /// The modules of a bzImage: a directory such as /lib/modules/6.12.0 or a build tree
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
    },
    /// Name the kernels that are there
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Remove kernels
    Remove {
        /// As `faultlab kernel list` prints them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

pub(super) fn kernel(verb: Kernel, style: Style) -> Result<(), Stop> {
    let store = Store::open()?;
    match verb {
        Kernel::Add { what, modules } => add(&store, &what, modules.as_deref()),
        Kernel::List { json } => list(&store, json, style),
        Kernel::Remove { ids } => {
            for id in &ids {
                store.remove(id)?;
                terminal::print(&format!("removed {}\n", text::line(id)))?;
            }
            Ok(())
        }
    }
}

fn add(store: &Store, what: &[String], modules: Option<&std::path::Path>) -> Result<(), Stop> {
    let source = Source::parse(what, modules).map_err(|e| Stop::Usage(e.to_string()))?;
    let terminal = io::stderr().is_terminal();
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(progress::style("{spinner} {msg}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let bytes = progress::style("{spinner} {msg}  {bytes}/{total_bytes}  {bytes_per_sec}");
    let added = faultlab_kernels::add(store, &source, &mut |progress| match progress {
        Progress::Step(step) => {
            bar.set_message(text::line(&step).into_owned());
        }
        Progress::Bytes { done, total } => {
            if let Some(total) = total {
                bar.set_style(bytes.clone());
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    });
    bar.finish_and_clear();
    let entry = clean(added?);
    let version = entry.version.map_or(String::new(), |v| format!(" ({v})"));
    Ok(terminal::print(&format!(
        "added {}: Linux {}{version}, {} modules; faultlab run --kernel {}\n",
        entry.id, entry.release, entry.modules, entry.id
    ))?)
}

/// Cleans the texts of an entry for the terminal: they come from a package, or from files
/// of the store that may have been modified.
fn clean(mut entry: Entry) -> Entry {
    let Entry { id, release, version, source, modules: _, sums } = &mut entry;
    for name in [id, release, sums].into_iter().chain(version).chain(source) {
        *name = text::line(name).into_owned();
    }
    entry
}

fn list(store: &Store, json: bool, style: Style) -> Result<(), Stop> {
    let entries: Vec<_> = store.list()?.into_iter().map(clean).collect();
    let invalid = store.invalid()?;
    for invalid in &invalid {
        terminal::say(&invalid.to_string());
    }
    let mut out = String::new();
    for entry in &entries {
        if json {
            let line = json!({
                "id": entry.id, "release": entry.release, "version": entry.version,
                "modules": entry.modules, "source": entry.source,
            });
            out.push_str(&(text::json(&line) + "\n"));
        } else {
            let version = entry.version.as_deref().unwrap_or("-");
            out.push_str(&format!(
                "{}  Linux {}, {version}, {} modules\n",
                style.bold(&entry.id),
                entry.release,
                entry.modules
            ));
        }
    }
    if entries.is_empty() && invalid.is_empty() && !json {
        out.push_str("no kernels yet; `faultlab kernel add debian:bookworm` fetches one\n");
    }
    Ok(if json { terminal::print_data(&out) } else { terminal::print(&out) }?)
}
