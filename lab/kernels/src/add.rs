//! Adds a kernel to the store: from a suite, from packages, or from an image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::apt::Apt;
use super::beneath::{BeneathPath, is_one_line, quoted};
use super::directory::{Directory, regular_file};
use super::entry::Entry;
use super::image::Image;
use super::kernel_image::{IMAGE, modules_beside, modules_of};
use super::limits::{IMAGE_MAX, LIST_MAX, MODULE_MAX, Size, UNPACKED_MAX, too_large};
use super::modules::{self, MODULES};
use super::package::{self, Contents};
use super::progress::Progress;
use super::source::{Source, names};
use super::store::Store;
use super::suite;
use faultlab_base::error::{Error, Result};

/// Adds a kernel to the store, or replaces the entry of that name. A failed add leaves
/// no files in the store. Those of a killed process are removed when the store is
/// opened again.
///
/// # Errors
/// One sentence: what is wrong with the source, or that the store cannot be written
/// to.
pub fn add(store: &Store, source: &Source, progress: &mut dyn FnMut(Progress)) -> Result<Entry> {
    prepare(store, source, progress).map_err(|e| match e.errno().map(Errno::from_raw) {
        Some(full @ (Errno::ENOSPC | Errno::EDQUOT)) => {
            store.failed(&format!("add {source} (nothing of it is kept)"), full.into())
        }
        _ => e,
    })
}

fn prepare(store: &Store, source: &Source, progress: &mut dyn FnMut(Progress)) -> Result<Entry> {
    let temporary = store.temporary()?;
    let prepared = temporary.path.join("entry");
    fs::create_dir(&prepared).map_err(|e| store.failed("make a directory", e))?;
    let mut entry = Entry {
        id: String::new(),
        release: String::new(),
        version: None,
        source: vec![source.to_string()],
        modules: 0,
        sums: String::new(),
    };
    if let Source::Packages(files) = source {
        entry.source = names(files);
    }
    if let Some(name) = entry.source.iter().find(|name| !is_one_line(name)) {
        let shown = quoted(name.as_bytes());
        return Err(Error::Lab(format!("{shown} has characters that do not print; rename it")));
    }
    let prepared_dir = Directory::open(&prepared).map_err(|e| store.failed("open a directory", e))?;
    match source {
        Source::Suite(suite) => {
            let apt = temporary.path.join("apt");
            fs::create_dir(&apt).map_err(|e| store.failed("make a directory", e))?;
            let apt = Apt::prepare(&apt, suite)?;
            apt.update(progress)?;
            let records = apt.records()?;
            let parts = suite::choose(suite, &records)?;
            entry.id = suite.to_string();
            entry.version = Some(parts[0].version.clone());
            if let Some(there) = store.entry(&entry.id)
                && there.version == entry.version
                && store.is_intact(&entry.id)
            {
                return Ok(there);
            }
            let files = apt.download(&parts, progress)?;
            entry.release = unpack(&files, &prepared_dir, progress)?;
        }
        Source::Packages(files) => {
            entry.release = unpack(files, &prepared_dir, progress)?;
            entry.id.clone_from(&entry.release);
        }
        Source::Image { image, modules } => {
            entry.release = copy(image, modules.as_deref(), &prepared_dir, progress)?;
            entry.id.clone_from(&entry.release);
        }
    }
    progress(Progress::Step(format!("checking in {}", entry.id)));
    store.publish(&prepared, entry)
}

/// Unpacks the packages of one kernel; returns its release.
fn unpack(files: &[PathBuf], prepared: &Directory, progress: &mut dyn FnMut(Progress)) -> Result<String> {
    let mut sizes = BTreeMap::new();
    for file in files {
        let size = fs::metadata(file)
            .map_err(|e| Error::kernel("kernel package", format!("read {}", file.display()), e))?;
        sizes.insert(file, size.len());
    }
    let total = sizes.values().fold(0, |total: u64, size| total.saturating_add(*size));
    progress(Progress::Step(format!("unpacking {}", names(files).join(" "))));
    let mut found = Contents::default();
    let mut before = 0u64;
    for file in files {
        package::unpack(file, prepared, &mut found, &mut |read| {
            progress(Progress::Bytes { done: before.saturating_add(read), total: Some(total) });
        })?;
        before = before.saturating_add(sizes[file]);
    }
    let what = names(files).join(", ");
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" and ");
    match (found.images.len(), found.modules.len()) {
        (0, 0) => return Err(Error::Lab(format!("{what}: no kernel in it, neither image nor modules"))),
        (0, _) => {
            let modules = list(&found.modules);
            return Err(Error::Lab(format!(
                "{what}: the modules of {modules} without its image; add the package with the image too \
                 ({})",
                image_package(&modules)
            )));
        }
        (1, 0) => {
            let image = list(&found.images);
            return Err(Error::Lab(format!(
                "{what}: the image of {image} without its modules; add the package with the modules too (linux-modules-{image})"
            )));
        }
        (1, 1) if found.images == found.modules => {}
        _ => {
            return Err(Error::Lab(format!(
                "{what}: more than one kernel, images of {} and modules of {}",
                list(&found.images),
                list(&found.modules)
            )));
        }
    }
    check_configuration(&what, prepared)?;
    let release = prepared
        .file(&BeneathPath::known(IMAGE))
        .and_then(Image::read)
        .map_err(|e| Error::kernel(what.clone(), "read its image", e))?
        .map_err(|why| Error::Lab(format!("{what}: its image is no bzImage: {why}")))?
        .release;
    if found.images.contains(&release) {
        Ok(release)
    } else {
        Err(Error::Lab(format!(
            "{what}: the image says that it is {release}, its package {}",
            list(&found.images)
        )))
    }
}

/// The options that a guest needs: drivers/tty/serial/8250/Kconfig and init/Kconfig.
const CONFIGURED: [(&str, &str); 2] =
    [("CONFIG_SERIAL_8250_CONSOLE", "console on a serial port"), ("CONFIG_BLK_DEV_INITRD", "initramfs")];

/// Checks the kernel configuration, if the package has one.
fn check_configuration(what: &str, prepared: &Directory) -> Result<()> {
    let config = match prepared.read(&BeneathPath::known("config"), LIST_MAX) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::kernel(what, "read its configuration", e)),
    };
    match CONFIGURED.iter().find(|(name, _)| !config.lines().any(|line| line == format!("{name}=y"))) {
        None => Ok(()),
        Some((name, feature)) => Err(Error::missing(
            format!("{what}: {name}=y in the kernel's configuration"),
            format!("without it the guest has no {feature}"),
        )),
    }
}

/// Copies an image and its modules; returns its release.
fn copy(
    image: &Path,
    dir: Option<&Path>,
    prepared: &Directory,
    progress: &mut dyn FnMut(Progress),
) -> Result<String> {
    let release = Image::open(image)?.release;
    let modules_dir = match dir {
        Some(dir) => Some(modules_of(dir, &release)?),
        None => modules_beside(image, &release),
    };
    progress(Progress::Step(format!("copying {}", image.display())));
    let failed = |path: &Path| {
        let tried = format!("copy {}", path.display());
        move |e| Error::kernel("kernel store", tried, e)
    };
    let to = |path: &BeneathPath| prepared.create(path);
    regular_file(image)
        .and_then(|from| copy_file(from, to(&BeneathPath::known(IMAGE))?, IMAGE_MAX))
        .map_err(failed(image))?;
    let Some(modules_dir) = modules_dir else { return Ok(release) };
    let files = modules::files(&modules_dir)?;
    if files.is_empty() && dir.is_some() {
        return Err(Error::Lab(format!("{}: no kernel modules in it", modules_dir.path().display())));
    }
    let mut done = 0;
    for file in files {
        let from = modules_dir.path().join(file.as_str());
        let max = if package::is_module(file.as_str()) { MODULE_MAX } else { LIST_MAX };
        done += modules_dir
            .file(&file)
            .and_then(|from| copy_file(from, to(&file.under(MODULES))?, max))
            .map_err(failed(&from))?;
        if done > UNPACKED_MAX {
            let all = modules_dir.path().display();
            return Err(Error::Lab(format!("{all}: its modules are larger than {}", Size(UNPACKED_MAX))));
        }
        progress(Progress::Bytes { done, total: None });
    }
    Ok(release)
}

/// Copies a file of at most `max` bytes; returns its size.
fn copy_file(from: File, mut to: File, max: u64) -> io::Result<u64> {
    if from.metadata()?.len() > max {
        return Err(too_large(max));
    }
    // The file may grow after its size was read.
    let copied = io::copy(&mut from.take(max.saturating_add(1)), &mut to)?;
    if copied > max { Err(too_large(max)) } else { Ok(copied) }
}

/// The name of the package with the image of a release, where image and modules are
/// separate packages.
fn image_package(release: &str) -> String {
    // Debian's releases end with `+deb14-amd64` since its packages are separate.
    let kind = if release.contains("+deb") { "binary" } else { "image" };
    format!("linux-{kind}-{release}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_distributions_package() {
        assert_eq!(image_package("6.8.0-31-generic"), "linux-image-6.8.0-31-generic");
        assert_eq!(image_package("7.2.13+deb14-amd64"), "linux-binary-7.2.13+deb14-amd64");
    }
}
