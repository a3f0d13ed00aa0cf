//! Runs the machine's apt with a private state directory.
//!
//! Mirrors, keys and proxies are those of the machine's configuration. Lists, caches
//! and packages are written to the private directory, and the hooks of `apt-get update`
//! are disabled. This needs no privileges.
//!
//! Reading: apt.conf(5), sources.list(5), apt-get(8), apt-cache(8).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command;
use super::mirror::Mirror;
use super::progress::Progress;
use super::suite::{self, Record, Suite};
use faultlab_base::error::{Error, Result};

/// apt with one suite in its sources and nothing else.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
    suite: Suite,
}

impl Apt {
    /// Prepares apt for `suite` in the empty directory `dir`.
    ///
    /// # Errors
    /// If apt is missing, or its configuration has no mirror of the distribution.
    pub fn prepare(dir: &Path, suite: &Suite) -> Result<Self> {
        let mirror = Mirror::of(suite)?;
        let apt = Self { dir: dir.to_owned(), suite: suite.clone() };
        apt.configure(&mirror).map_err(|e| Error::kernel(dir.display().to_string(), "prepare apt", e))?;
        Ok(apt)
    }

    fn configure(&self, mirror: &Mirror) -> io::Result<()> {
        for sub in ["state/lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(self.dir.join(sub))?;
        }
        let signed_by = match &mirror.signed_by {
            Some(key) if key.contains("BEGIN PGP") => {
                let path = self.dir.join("key.asc");
                fs::write(&path, key)?;
                format!(" signed-by={}", path.display())
            }
            Some(keyring) => {
                format!(" signed-by={}", keyring.split_whitespace().collect::<Vec<_>>().join(","))
            }
            None => String::new(),
        };
        fs::write(
            self.dir.join("sources.list"),
            format!("deb [arch=amd64 target=Packages{signed_by}] {} {} main\n", mirror.uri, self.suite.name),
        )?;
        fs::write(self.dir.join("status"), "")?;
        fs::write(
            self.dir.join("apt.conf"),
            format!(
                r#"Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Update::Error-Mode "any";
Acquire::GzipIndexes "false";
Acquire::Languages "none";
"#,
                dir = self.dir.display()
            ),
        )
    }

    /// Fetches the suite's lists and checks their signatures.
    ///
    /// # Errors
    /// One sentence with apt's error.
    pub fn update(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        progress(Progress::Step(format!("reading the package lists of {}", self.suite.name)));
        let partial = self.dir.join("state/lists/partial");
        let mut seen = Seen::default();
        let mut look = || {
            seen.look(&partial, |name| !name.ends_with("_Packages"));
            progress(Progress::Bytes { done: seen.bytes(), total: None });
        };
        self.run(self.apt("apt-get", &["update", "-q"]), &mut look).map(drop)
    }

    /// The kernel packages of the suite; call [`Apt::update`] first.
    ///
    /// # Errors
    /// One sentence with apt's error.
    pub fn records(&self) -> Result<Vec<Record>> {
        let names = self.run(self.apt("apt-cache", &["pkgnames", "linux-"]), &mut || ())?;
        let names: Vec<_> = names.lines().filter(|name| suite::is_kernel_package(name)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut show = self.apt("apt-cache", &["show", "-a"]);
        show.args(names);
        Ok(suite::parse_records(&self.run(show, &mut || ())?))
    }

    /// Downloads packages; apt checks them against the signed lists.
    ///
    /// # Errors
    /// One sentence with apt's error.
    pub fn download(&self, packages: &[&Record], progress: &mut dyn FnMut(Progress)) -> Result<Vec<PathBuf>> {
        progress(Progress::Step(format!("fetching {}", packages[0].name)));
        let total = packages.iter().fold(0, |total: u64, package| total.saturating_add(package.size));
        let (partial, debs) = (self.dir.join("cache/archives/partial"), self.dir.join("debs"));
        let mut download = self.apt("apt-get", &["download", "-q"]);
        download.current_dir(&debs).args(packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        let mut seen = Seen::default();
        let mut look = || {
            seen.look(&partial, |_| true);
            seen.look(&debs, |_| true);
            progress(Progress::Bytes { done: seen.bytes().min(total), total: Some(total) });
        };
        self.run(download, &mut look)?;
        let tried = || format!("read {}", debs.display());
        let mut files = Vec::new();
        for file in fs::read_dir(&debs).map_err(|e| Error::kernel("apt", tried(), e))? {
            files.push(file.map_err(|e| Error::kernel("apt", tried(), e))?.path());
        }
        files.sort();
        if files.len() == packages.len() {
            Ok(files)
        } else {
            Err(Error::Lab(format!(
                "{}: apt fetched {} packages of {}",
                self.suite,
                files.len(),
                packages.len()
            )))
        }
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.dir.join("apt.conf")).args(arguments);
        command
    }

    fn run(&self, command: Command, look: &mut dyn FnMut()) -> Result<String> {
        let output = command::run(command, look)?;
        if output.success {
            return Ok(output.stdout);
        }
        if output.stderr.contains("No space left on device") || output.stderr.contains("enough free space") {
            let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
            return Err(Error::kernel(self.dir.display().to_string(), "fetch", full));
        }
        Err(Error::Lab(format!("{}: apt: {}", self.suite, objection(&output.stderr))))
    }
}

/// The line of apt's output that explains a failure, without its mark. A missing key is
/// preferred, for which apt prints only a warning; otherwise it is the first error.
fn objection(stderr: &str) -> String {
    let marked = |mark: &str| stderr.lines().find_map(|line| line.strip_prefix(mark)).map(str::trim);
    if let Some(key) = stderr.lines().find(|line| line.contains("NO_PUBKEY")) {
        let why = key.trim_start_matches("W: ").trim();
        return format!("{why}; a newer debian-archive-keyring may have it");
    }
    let line = marked("E: ").or_else(|| marked("W: ")).or_else(|| stderr.lines().next());
    line.unwrap_or("it failed without a word").to_owned()
}

/// The largest size observed of each file, by name. A file counts even after apt has
/// moved or unpacked it.
#[derive(Default)]
struct Seen(HashMap<std::ffi::OsString, u64>);

impl Seen {
    fn look(&mut self, dir: &Path, counts: impl Fn(&str) -> bool) {
        for file in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            if counts(&name.to_string_lossy())
                && let Ok(metadata) = file.metadata()
                && metadata.is_file()
            {
                let largest = self.0.entry(name).or_default();
                *largest = metadata.len().max(*largest);
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_more_than_a_warning() {
        assert_eq!(objection("W: careful\nE: it broke\n"), "it broke");
        assert_eq!(objection("W: careful\n"), "careful");
        assert_eq!(objection(""), "it failed without a word");
    }
}
