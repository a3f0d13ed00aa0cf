//! The sources from which a kernel can be added, as named on the command line.

use std::fmt;
use std::path::{Path, PathBuf};

use super::suite::Suite;
use faultlab_base::error::{Error, Result};

/// What a kernel is added from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A suite of a distribution, from the machine's mirror.
    Suite(Suite),
    /// Package files: one, or several if image and modules are separate packages.
    Packages(Vec<PathBuf>),
    /// A bzImage.
    Image {
        /// The bzImage.
        image: PathBuf,
        /// The directory of its modules; `None` to search for them by the image's path.
        modules: Option<PathBuf>,
    },
}

impl Source {
    /// Interprets the words of a command line: `debian:SUITE`, package files, or
    /// one bzImage, optionally with its modules.
    ///
    /// # Errors
    /// If the words do not fit together.
    pub fn parse(words: &[String], modules: Option<&Path>) -> Result<Self> {
        let is_deb = |word: &String| Path::new(word).extension().is_some_and(|end| end == "deb");
        let lone_modules =
            || Err(Error::Lab("modules go with a bzImage only; packages bring their own".into()));
        match words {
            [] => Err(Error::Lab("a suite, package files or a bzImage are wanted".into())),
            [word] if Suite::is_meant(word) && !Path::new(word).exists() => match modules {
                None => Ok(Self::Suite(word.parse()?)),
                Some(_) => lone_modules(),
            },
            words if words.iter().all(is_deb) => match modules {
                None => Ok(Self::Packages(words.iter().map(PathBuf::from).collect())),
                Some(_) => lone_modules(),
            },
            [image] => Ok(Self::Image { image: image.into(), modules: modules.map(Path::to_owned) }),
            [first, ..] => Err(Error::Lab(format!(
                "{first}: several files can be added as one kernel only if all are .deb; unpack other packages, and \
                 add lib/modules/RELEASE/vmlinuz"
            ))),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suite(suite) => suite.fmt(f),
            Self::Packages(files) => f.write_str(&names(files).join(" ")),
            Self::Image { image, .. } => image.display().fmt(f),
        }
    }
}

/// The names of files, without their directories.
pub(super) fn names(files: &[PathBuf]) -> Vec<String> {
    files
        .iter()
        .map(|file| file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned())
        .collect()
}
