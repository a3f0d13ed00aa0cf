//! Finds the mirror and the keys in the configuration of the machine's apt.
//!
//! Reading: sources.list(5), apt-get(8) "indextargets", apt-config(8).

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::command;
use super::suite::Suite;
use faultlab_base::error::{Error, Result};

/// A mirror of a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uri: String,
    /// The value of Signed-By: paths, fingerprints or a whole key.
    pub(super) signed_by: Option<String>,
}

/// One URI with one suite in the machine's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    uri: String,
    suite: String,
    main: bool,
    signed_by: Option<String>,
}

impl Mirror {
    /// The machine's configured mirror for `suite`.
    ///
    /// # Errors
    /// If apt is missing, or its sources have no such mirror.
    pub(super) fn of(suite: &Suite) -> Result<Self> {
        let mut targets = Command::new("apt-get");
        targets.args([
            "indextargets",
            "--format",
            "$(ORIGIN)\t$(RELEASE)\t$(REPO_URI)",
            "Created-By: Packages",
        ]);
        let targets = command::run(targets, &mut || ())?.stdout;
        let mut places = Command::new("apt-config");
        places.args(["shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]);
        let named: Vec<_> =
            sources(&command::run(places, &mut || ())?.stdout).iter().flat_map(|text| parse(text)).collect();
        find(&targets, &named, suite.is_security()).ok_or_else(|| {
            let (kind, example) = if suite.is_security() {
                ("security mirror", "its security suite")
            } else {
                ("mirror", "any of its suites")
            };
            Error::missing(
                format!("{suite}: a Debian {kind} in this machine's apt sources"),
                format!("name one there with {example}, or add the .deb files"),
            )
        })
    }
}

/// The contents of the sources files, whose locations apt-config prints as shell
/// variables: LIST='/etc/apt/sources.list' and PARTS='/etc/apt/sources.list.d/'.
fn sources(variables: &str) -> Vec<String> {
    let variable = |name: &str| {
        let value = variables.lines().find_map(|line| line.strip_prefix(name))?;
        Some(PathBuf::from(value.trim_matches('\'')))
    };
    let parts = variable("PARTS=").and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut files: Vec<_> = parts.map(|file| file.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "list" || end == "sources"));
    files.sort();
    variable("LIST=").into_iter().chain(files).filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Finds the first Debian mirror. `targets` has the origins of the lists that apt has
/// fetched. Before the first `apt-get update`, as in a fresh container, it is empty;
/// then a mirror is identified by its key or by the end of its path.
fn find(targets: &str, named: &[Named], security: bool) -> Option<Mirror> {
    // Up to Debian 10 the suite was named buster/updates.
    let of_security = |suite: &str| suite.ends_with("-security") || suite.ends_with("/updates");
    let by_origin = targets.lines().find_map(|line| {
        let mut fields = line.split('\t');
        let (origin, release, uri) = (fields.next()?, fields.next()?, fields.next()?);
        (origin == "Debian" && of_security(release) == security).then_some(uri)
    });
    let candidates = || named.iter().filter(|named| of_security(&named.suite) == security);
    let by_key = |named: &&Named| named.signed_by.as_ref().is_some_and(|key| key.contains("debian-archive"));
    let by_path = |named: &&Named| {
        let last = named.uri.trim_end_matches('/').rsplit('/').next();
        named.main && (last == Some("debian") || last == Some("debian-security"))
    };
    let found = if let Some(uri) = by_origin {
        candidates().find(|named| same_uri(&named.uri, uri))
    } else {
        candidates().find(by_key).or_else(|| candidates().find(by_path))
    };
    let uri = by_origin.map(str::to_owned).or_else(|| found.map(|named| named.uri.clone()))?;
    Some(Mirror { uri, signed_by: found.and_then(|named| named.signed_by.clone()) })
}

fn same_uri(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// Parses a sources file, in one-line format or deb822.
fn parse(text: &str) -> Vec<Named> {
    let lines = text.lines().filter_map(parse_line);
    let stanzas =
        text.split("\n\n").map(fields).filter(|f| f.get("enabled").is_none_or(|value| value != "no"));
    lines.chain(stanzas.flat_map(|fields| parse_stanza(&fields))).collect()
}

/// `deb [OPTION=VALUE ...] URI SUITE COMPONENT...`
fn parse_line(line: &str) -> Option<Named> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Named {
        uri: words.next()?.to_owned(),
        suite: words.next()?.to_owned(),
        main: words.any(|component| component == "main"),
        signed_by: signed_by.map(str::to_owned),
    })
}

fn parse_stanza(fields: &HashMap<String, String>) -> Vec<Named> {
    let words = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default().split_whitespace();
    if !words("types").any(|kind| kind == "deb") {
        return Vec::new();
    }
    let named = |uri: &str, suite: &str| Named {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        main: words("components").any(|component| component == "main"),
        signed_by: fields.get("signed-by").cloned(),
    };
    words("uris")
        .flat_map(|uri| words("suites").map(move |suite| named(uri, suite)).collect::<Vec<_>>())
        .collect()
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

    const SOURCES: &str = "\
# deb http://old.example/debian sid main
deb https://docker.example/linux/debian bookworm stable
deb [arch=amd64 signed-by=/k/a.gpg] http://corp.example/bookworm bookworm main

Types: deb
URIs: http://m.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
# why
URIs: http://s.example
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQ
";

    #[test]
    fn the_origin_tells_the_mirror() {
        let targets = "Elsewhere\tnodistro\thttps://node.example/\n\
                       Debian\tbookworm\thttp://corp.example/bookworm/\n\
                       Debian\tbookworm-security\thttp://s.example/\n";
        let named = parse(SOURCES);
        let mirror = find(targets, &named, false).unwrap();
        assert_eq!(mirror.uri, "http://corp.example/bookworm/");
        assert_eq!(mirror.signed_by.as_deref(), Some("/k/a.gpg"));
        let mirror = find(targets, &named, true).unwrap();
        assert_eq!(mirror.uri, "http://s.example/");
        assert_eq!(mirror.signed_by.as_deref(), Some("\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ"));
    }

    #[test]
    fn before_the_first_update_the_path_or_the_key_tells() {
        let named = parse(SOURCES);
        assert_eq!(find("", &named, false).unwrap().uri, "http://m.example/debian");
        assert_eq!(find("", &named, true), None);
        let named =
            parse("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://x.example sid main");
        assert_eq!(find("", &named, false).unwrap().uri, "http://x.example");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\\t\\n]{0,200}") {
            let _ = find(&text, &parse(&text), true);
            let _ = parse(&format!("deb [{text}"));
            let _ = parse(&format!("Types: deb\nURIs: {text}"));
        }
    }
}
