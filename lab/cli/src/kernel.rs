//! `faultlab kernel`: the store of kernel images.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::Stop;
use faultlab_machine::vm::{Progress, Source, Store};
use faultlab_report::Style;

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
                writeln!(io::stdout().lock(), "removed {id}")?;
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
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is right"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let bytes = "{spinner} {msg}  {bytes}/{total_bytes}  {bytes_per_sec}";
    let bytes = ProgressStyle::with_template(bytes).expect("the template is right");
    let added = store.add(&source, &mut |progress| match progress {
        Progress::Step(step) => {
            bar.set_message(step);
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
    let entry = added?;
    let version = entry.version.map_or(String::new(), |v| format!(" ({v})"));
    writeln!(
        io::stdout().lock(),
        "added {}: Linux {}{version}, {} modules; faultlab run --kernel {}",
        entry.id,
        entry.release,
        entry.modules,
        entry.id
    )?;
    Ok(())
}

fn list(store: &Store, json: bool, style: Style) -> Result<(), Stop> {
    let entries = store.list()?;
    let invalid = store.invalid()?;
    for invalid in &invalid {
        writeln!(io::stderr().lock(), "faultlab: {invalid}")?;
    }
    let mut out = io::stdout().lock();
    for entry in &entries {
        if json {
            let line = json!({
                "id": entry.id, "release": entry.release, "version": entry.version,
                "modules": entry.modules, "source": entry.source,
            });
            writeln!(out, "{line}")?;
        } else {
            let version = entry.version.as_deref().unwrap_or("-");
            writeln!(
                out,
                "{}  Linux {}, {version}, {} modules",
                style.bold(&entry.id),
                entry.release,
                entry.modules
            )?;
        }
    }
    if entries.is_empty() && invalid.is_empty() && !json {
        writeln!(out, "no kernels yet; `faultlab kernel add debian:bookworm` fetches one")?;
    }
    Ok(())
}
