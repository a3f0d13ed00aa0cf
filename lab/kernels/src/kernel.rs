//! A kernel that can be run: an image and its modules.

use std::fs;
use std::path::{Path, PathBuf};

use super::image::Image;
use super::modules::Modules;
use super::sums::Sums;
use faultlab_base::error::{Error, Result};

/// A kernel that can be run.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its name in the store, or the path of its image.
    pub id: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// Where its modules lie, if it has any.
    pub modules_dir: Option<PathBuf>,
    pub(super) sums: Option<Sums>,
}

impl Kernel {
    /// A kernel that is in no store, just built perhaps. Without a directory
    /// of modules, those beside the image are taken: of an installed kernel,
    /// /lib/modules/RELEASE; of a kernel's build tree, the tree.
    ///
    /// # Errors
    /// Where the image is none, or `modules` is no directory.
    pub fn from_image(image: &Path, modules: Option<&Path>) -> Result<Self> {
        let release = Image::open(image)?.release;
        let modules_dir = match modules {
            Some(dir) => Some(modules_of(dir, &release)?),
            None => modules_beside(image, &release),
        };
        Ok(Self {
            id: image.display().to_string(),
            release,
            image: image.to_owned(),
            modules_dir,
            sums: None,
        })
    }

    /// Reads its bzImage, which is checked where it is the store's.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what was added.
    pub fn read_image(&self) -> Result<Vec<u8>> {
        let bytes = fs::read(&self.image)
            .map_err(|e| Error::kernel("kernel image", format!("read {}", self.image.display()), e))?;
        if let (Some(sums), Some(entry), Some(name)) =
            (&self.sums, self.image.parent(), self.image.file_name())
        {
            sums.check(entry, Path::new(name), &bytes)?;
        }
        Ok(bytes)
    }

    /// An index of its modules, empty where it has none. Files of the store
    /// are checked when they are read.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn modules(&self) -> Result<Modules> {
        match &self.modules_dir {
            None => Ok(Modules::none(&self.release)),
            Some(dir) => Modules::open(dir, &self.release, self.sums.clone()),
        }
    }
}

/// Where under `dir` the modules of `release` lie: `dir` may be that
/// directory, /lib/modules, or a root into which they were installed.
pub(super) fn modules_of(dir: &Path, release: &str) -> Result<PathBuf> {
    fs::read_dir(dir).map_err(|e| Error::kernel("kernel modules", format!("read {}", dir.display()), e))?;
    let under = ["", "lib/modules", "usr/lib/modules"].map(|sub| dir.join(sub).join(release));
    Ok(under.into_iter().find(|dir| dir.is_dir()).unwrap_or_else(|| dir.to_owned()))
}

/// Where the modules of an image lie that was not copied away from them.
pub(super) fn modules_beside(image: &Path, release: &str) -> Option<PathBuf> {
    let image = image.canonicalize().ok()?;
    let dir = image.parent()?;
    // /boot/vmlinuz-RELEASE, /lib/modules/RELEASE/vmlinuz, arch/x86/boot/bzImage
    let candidates = [
        (dir.ends_with("boot") && dir.parent()?.parent().is_none())
            .then(|| Path::new("/lib/modules").join(release)),
        dir.ends_with(Path::new("modules").join(release)).then(|| dir.to_owned()),
        dir.ends_with("arch/x86/boot").then(|| dir.ancestors().nth(3).map(Path::to_owned)).flatten(),
    ];
    candidates.into_iter().flatten().find(|dir| dir.is_dir())
}
