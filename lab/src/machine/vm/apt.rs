//! The machine's apt, in a private state directory.
//!
//! Mirrors, keys and proxies are those that the machine is configured with;
//! lists, caches and packages lie in a directory of our own, and no hook of
//! the machine's configuration runs. Works without privileges.
//!
//! Reading: apt.conf(5), sources.list(5), apt-get(8) "indextargets".

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::store::Progress;
use super::suite::{self, Record, Suite};
use crate::error::{Error, Result};

/// How often a running download is looked at, in milliseconds.
const LOOK_EVERY: u16 = 200;

/// Where a distribution's packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    uri: String,
    /// The value of Signed-By: paths, fingerprints or a whole key.
    signed_by: Option<String>,
}

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
    /// Where there is no apt, or its configuration names no mirror of the
    /// distribution.
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
    /// One sentence with what apt objected to.
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

    /// What the suite has of kernels; after [`Apt::update`].
    ///
    /// # Errors
    /// One sentence with what apt objected to.
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
    /// One sentence with what apt objected to.
    pub fn download(&self, packages: &[&Record], progress: &mut dyn FnMut(Progress)) -> Result<Vec<PathBuf>> {
        progress(Progress::Step(format!("fetching {}", packages[0].name)));
        let total = packages.iter().map(|p| p.size).sum();
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
        let output = run(command, look)?;
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

/// The first thing that apt calls an error, without its mark.
fn objection(stderr: &str) -> &str {
    let marked = |mark: &str| stderr.lines().find_map(|line| line.strip_prefix(mark)).map(str::trim);
    marked("E: ")
        .or_else(|| marked("W: "))
        .or_else(|| stderr.lines().next())
        .unwrap_or("it failed without a word")
}

/// The largest size at which each file was seen: what has been fetched, also
/// after a finished file was moved or unpacked.
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

impl Mirror {
    fn of(suite: &Suite) -> Result<Self> {
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", "$(ORIGIN)\t$(RELEASE)\t$(REPO_URI)\t$(SOURCESENTRY)"]);
        targets.arg("Created-By: Packages");
        let output = run(targets, &mut || ())?;
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let Some((uri, entry)) = find_mirror(&output.stdout, &os_release, suite.is_security()) else {
            let (kind, other) =
                if suite.is_security() { ("security mirror", "-security") } else { ("mirror", "") };
            return Err(Error::missing(
                format!("{suite}: a Debian {kind} in this machine's apt sources"),
                format!("add one for any suite{other}, or add the .deb files"),
            ));
        };
        // SOURCESENTRY is FILE:NUMBER.
        let file = entry.rsplit_once(':').map_or(entry.as_str(), |(file, _)| file);
        let sources = fs::read_to_string(file).unwrap_or_default();
        Ok(Self { signed_by: find_signed_by(&sources, &uri), uri })
    }
}

/// The first Debian mirror among the lines that apt-get prints, and the
/// entry of the sources that names it. Where the lists were never fetched,
/// apt knows no origin; then a mirror of the running release counts.
fn find_mirror(targets: &str, os_release: &str, security: bool) -> Option<(String, String)> {
    let field =
        |name| os_release.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim_matches('"'));
    let codename = field("ID=").filter(|id| *id == "debian").and_then(|_| field("VERSION_CODENAME="));
    targets.lines().find_map(|line| {
        let mut fields = line.split('\t');
        let (origin, release, uri, entry) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let ours = match origin {
            "Debian" => true,
            "" | "$(ORIGIN)" => {
                let plain = release.split(['-', '/']).next().unwrap_or(release);
                Some(plain) == codename || ["stable", "testing", "unstable", "sid"].contains(&plain)
            }
            _ => false,
        };
        // Up to Debian 10 the suite was called buster/updates.
        let of_security = release.ends_with("-security") || release.ends_with("/updates");
        (ours && of_security == security).then(|| (uri.to_owned(), entry.to_owned()))
    })
}

/// The Signed-By of the entry with this URI, in either format of a sources
/// file.
fn find_signed_by(sources: &str, uri: &str) -> Option<String> {
    let same = |word: &str| word.trim_end_matches('/') == uri.trim_end_matches('/');
    let one_line = sources.lines().filter(|line| line.starts_with("deb ")).find_map(|line| {
        let (options, rest) = line.split_once('[')?.1.split_once(']')?;
        rest.split_whitespace().next().filter(|word| same(word))?;
        options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned)
    });
    one_line.or_else(|| {
        sources.split("\n\n").map(fields).find_map(|fields| {
            fields.get("uris")?.split_whitespace().find(|word| same(word))?;
            fields.get("signed-by").cloned()
        })
    })
}

/// The fields of a deb822 stanza, names in lower case, continuation lines
/// joined; " ." stands for an empty line.
fn fields(stanza: &str) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = HashMap::new();
    let mut last = String::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        if let Some(more) = line.strip_prefix(' ').filter(|_| !last.is_empty()) {
            let value = fields.entry(last.clone()).or_default();
            value.push('\n');
            value.push_str(if more == "." { "" } else { more });
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.to_lowercase();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    fields
}

struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Runs a program that dies with us, and looks up every now and then.
fn run(mut command: Command, look: &mut dyn FnMut()) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[allow(unsafe_code, reason = "a child can ask for its own death signal only between fork and exec")]
    // SAFETY: prctl is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(io::Error::from)
        });
    }
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::missing(program.clone(), "without apt, add the .deb files or the image itself")
        }
        _ => Error::kernel(program.clone(), "start", e),
    })?;
    let failed = |e: io::Error| Error::kernel(program.clone(), "read what it prints", e);
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut printed, mut complained) = (Vec::new(), Vec::new());
    while stdout.is_some() || stderr.is_some() {
        let mut ready = Vec::new();
        ready.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        ready.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ready, PollTimeout::from(LOOK_EVERY)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed(e.into())),
        }
        let mut ready = ready.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<_>>().into_iter();
        if stdout.is_some() && ready.next() == Some(true) {
            drain(&mut stdout, &mut printed).map_err(failed)?;
        }
        if stderr.is_some() && ready.next() == Some(true) {
            drain(&mut stderr, &mut complained).map_err(failed)?;
        }
        look();
    }
    let status = child.wait().map_err(failed)?;
    Ok(Output {
        success: status.success(),
        stdout: String::from_utf8_lossy(&printed).into_owned(),
        stderr: String::from_utf8_lossy(&complained).into_owned(),
    })
}

/// Takes what a pipe has; `None` once it has ended.
fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let n = pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut buffer))?;
    into.extend_from_slice(&buffer[..n]);
    if n == 0 {
        *pipe = None;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "ID=debian\nVERSION_CODENAME=bookworm\n";

    #[test]
    fn the_mirror_is_the_machines_own() {
        let targets = "Elsewhere\tnodistro\thttps://node.example/\t/etc/apt/sources.list.d/node.sources:1\n\
                       Debian\tbookworm\thttp://m.example/debian/\t/etc/apt/sources.list.d/debian.sources:1\n\
                       Debian\tbookworm-security\thttp://s.example/\t/etc/apt/sources.list.d/debian.sources:2\n";
        let uri = |security| find_mirror(targets, BOOKWORM, security).unwrap().0;
        assert_eq!(
            (uri(false).as_str(), uri(true).as_str()),
            ("http://m.example/debian/", "http://s.example/")
        );
        // Lists that were never fetched.
        let targets = targets.replace("Debian", "$(ORIGIN)").replace("Elsewhere", "$(ORIGIN)");
        assert_eq!(find_mirror(&targets, BOOKWORM, true).unwrap().0, "http://s.example/");
        assert_eq!(find_mirror(&targets, "ID=ubuntu\nVERSION_CODENAME=noble\n", false), None);
    }

    #[test]
    fn the_key_is_the_machines_own() {
        let lines = "# deb\ndeb [arch=amd64 signed-by=/k/a.gpg] http://m.example/debian sid main\n";
        assert_eq!(find_signed_by(lines, "http://m.example/debian/").as_deref(), Some("/k/a.gpg"));
        let stanzas = "Types: deb\nURIs: http://m.example/debian\nSuites: sid\n\n\
                       Types: deb\n# why\nURIs: http://s.example\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n";
        assert_eq!(find_signed_by(stanzas, "http://m.example/debian/"), None);
        let key = find_signed_by(stanzas, "http://s.example/").unwrap();
        assert_eq!(key, "\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ");
    }

    #[test]
    fn what_a_program_says_is_kept_apart() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo 'W: careful' >&2; echo 'E: it broke' >&2; exit 3"]);
        let output = run(command, &mut || ()).unwrap();
        assert_eq!((output.stdout.as_str(), output.success), ("out\n", false));
        assert_eq!(objection(&output.stderr), "it broke");
        let error = run(Command::new("no-such-program"), &mut || ()).map(drop).unwrap_err().to_string();
        assert_eq!(error, "no-such-program is missing; without apt, add the .deb files or the image itself");
    }
}
