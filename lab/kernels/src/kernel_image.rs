//! A kernel that can be run: an image and its modules.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::beneath::BeneathPath;
use super::directory::{Directory, regular_file};
use super::image::Image;
use super::limits::{IMAGE_MAX, read_at_most};
use super::modules::Modules;
use super::sums::Sums;
use faultlab_base::error::{Error, Result};

/// The file name of the image in an entry of the store.
pub(super) const IMAGE: &str = "kernel";

/// A kernel that can be run.
#[derive(Debug, Clone)]
pub struct KernelImage {
    /// Its name in the store, or the path of its image.
    pub id: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// The directory of its modules, if it has any.
    pub(super) modules_dir: Option<Arc<Directory>>,
    /// Its entry in the store, with the checksums of its files; `None` outside the
    /// store.
    pub(super) stored: Option<(Arc<Directory>, Arc<Sums>)>,
}

impl KernelImage {
    /// A kernel outside the store. If `modules` is `None`, its modules are searched for:
    /// /lib/modules/RELEASE for an installed kernel, the whole build tree for an image
    /// in one.
    ///
    /// # Errors
    /// If the image is invalid, or `modules` is not a directory.
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
            modules_dir: modules_dir.map(Arc::new),
            stored: None,
        })
    }

    /// Reads its bzImage, and verifies it if it is in the store.
    ///
    /// # Errors
    /// If it cannot be read, or has changed since it was added.
    pub fn read_image(&self) -> Result<Vec<u8>> {
        let failed = |e| Error::kernel("kernel image", format!("read {}", self.image.display()), e);
        let Some((entry, sums)) = &self.stored else {
            return regular_file(&self.image).and_then(|file| read_at_most(file, IMAGE_MAX)).map_err(failed);
        };
        let name = BeneathPath::known(IMAGE);
        let bytes = entry.read(&name, IMAGE_MAX).map_err(failed)?;
        sums.check(entry.path(), &name, &bytes)?;
        Ok(bytes)
    }

    /// An index of its modules, empty if it has none. Files of the store are
    /// verified when they are read.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn modules(&self) -> Result<Modules> {
        let sums = self.stored.as_ref().map(|(_, sums)| sums.clone());
        match &self.modules_dir {
            None => Ok(Modules::none(&self.release)),
            Some(dir) => Modules::open(dir.clone(), &self.release, sums),
        }
    }
}

/// Finds the modules of `release` in `dir`, which may be their directory, /lib/modules,
/// or an installation root. `dir` may be a symbolic link; links below it are not
/// followed.
pub(super) fn modules_of(dir: &Path, release: &str) -> Result<Directory> {
    let failed = |e: io::Error| Error::kernel("kernel modules", format!("read {}", dir.display()), e);
    let opened = Directory::open(dir).map_err(failed)?;
    for above in ["", "lib/modules/", "usr/lib/modules/"] {
        if let Ok(path) = BeneathPath::parse(format!("{above}{release}").as_bytes())
            && let Ok(found) = opened.directory(&path)
        {
            return Ok(found);
        }
    }
    Ok(opened)
}

/// Finds the modules of an image by its path: beside an installed image, or in its
/// build tree.
pub(super) fn modules_beside(image: &Path, release: &str) -> Option<Directory> {
    let image = image.canonicalize().ok()?;
    let dir = image.parent()?;
    // /boot/vmlinuz-RELEASE, /lib/modules/RELEASE/vmlinuz, arch/x86/boot/bzImage
    let candidates = [
        (dir.ends_with("boot") && dir.parent()?.parent().is_none())
            .then(|| Path::new("/lib/modules").join(release)),
        dir.ends_with(Path::new("modules").join(release)).then(|| dir.to_owned()),
        dir.ends_with("arch/x86/boot").then(|| dir.ancestors().nth(3).map(Path::to_owned)).flatten(),
    ];
    candidates.into_iter().flatten().find_map(|dir| Directory::open(&dir).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::image::tests::bzimage;
    use super::*;

    #[test]
    fn modules_lie_in_the_directory_that_is_named_and_not_where_a_link_leads() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("usr/lib/modules/6.1.0")).unwrap();
        fs::create_dir_all(outside.join("6.1.0")).unwrap();
        let found = |dir: &Path| modules_of(dir, "6.1.0").unwrap().path().to_owned();
        // A merged /usr.
        symlink("usr/lib", root.join("lib")).unwrap();
        assert_eq!(found(&root), root.join("usr/lib/modules/6.1.0"));
        assert_eq!(found(&root.join("usr/lib/modules")), root.join("usr/lib/modules/6.1.0"));
        symlink(outside.join("6.1.0"), root.join("6.1.0")).unwrap();
        assert_eq!(found(&root), root.join("usr/lib/modules/6.1.0"));
        fs::remove_dir_all(root.join("usr")).unwrap();
        assert_eq!(found(&root), root);
        symlink(&outside, dir.path().join("named")).unwrap();
        assert_eq!(found(&dir.path().join("named")), dir.path().join("named/6.1.0"));
    }

    #[test]
    fn an_image_is_a_file_of_a_size_that_a_guest_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bzImage");
        fs::write(&path, bzimage("6.1.0")).unwrap();
        let kernel = KernelImage::from_image(&path, None).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap();
        let error = kernel.read_image().unwrap_err().to_string();
        assert!(error.ends_with("bzImage: it is larger than 256 MiB"), "{error}");
        let error = KernelImage::from_image(&path, None).unwrap_err().to_string();
        assert!(error.ends_with("it has 3221225472 bytes, and may have 256 MiB"), "{error}");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for error in [kernel.read_image().unwrap_err(), KernelImage::from_image(&path, None).unwrap_err()] {
            assert!(error.to_string().ends_with("it is a FIFO and no regular file"), "{error}");
        }
    }
}
