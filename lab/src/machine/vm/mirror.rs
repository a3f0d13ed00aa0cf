//! The mirror and the keys that the machine's apt is configured with.
//!
//! Reading: sources.list(5), apt-get(8) "indextargets".

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use super::apt;
use super::suite::Suite;
use crate::error::{Error, Result};

/// Where a distribution's packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uri: String,
    /// The value of Signed-By: paths, fingerprints or a whole key.
    pub(super) signed_by: Option<String>,
}

impl Mirror {
    /// The machine's own mirror for `suite`.
    ///
    /// # Errors
    /// Where there is no apt, or its sources name no such mirror.
    pub(super) fn of(suite: &Suite) -> Result<Self> {
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", "$(ORIGIN)\t$(RELEASE)\t$(REPO_URI)\t$(SOURCESENTRY)"]);
        targets.arg("Created-By: Packages");
        let output = apt::run(targets, &mut || ())?;
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

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\\t\\n]{0,200}") {
            let _ = find_mirror(&text, &text, true);
            let _ = find_signed_by(&text, "http://m.example/");
            let _ = find_signed_by(&format!("deb [{text}"), "http://m.example/");
        }
    }
}
