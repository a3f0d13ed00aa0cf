//! The report, in a browser as a reader opens it.

mod browser;
#[allow(dead_code, reason = "nobody types here")]
mod user;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use faultlab_testkit::{Answer, PATIENCE, leave_out};
use lab::outcome::Outcome;
use lab::report::html::{Drawings, Page, html};
use lab::report::matrix::Column;
use tempfile::TempDir;

use browser::Browser;
use user::{ask, needs_namespaces};

faultlab_testkit::tests![faultlab_testkit::harness::two_at_a_time:
    nothing_overflows_and_everything_can_be_read,
    arms_fold_and_are_switched,
    it_is_read_without_a_script,
    whatever_is_named_is_text,
    the_html_is_valid,
    paper_needs_no_screen,
];

/// Scenarios that take seconds, with short and with long ladders.
const QUICK: &str = "conntrack-beyond-window-reset tw-recycle-nat time-wait-port-reuse --set recycle=model";

/// A report that all tests share, and its outcomes.
struct Report {
    html: String,
    outcomes: Vec<Outcome>,
}

fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    needs_namespaces();
    REPORT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a directory");
        let to = folder.path().display();
        let Answer { status, out, err } =
            ask(&format!("run {QUICK} --jobs 3 --json --report {to} --pcap {to}"));
        assert_eq!(status, Some(0), "{out}{err}");
        let outcomes = out.lines().map(|line| serde_json::from_str(line).expect("an outcome")).collect();
        let html = fs::read_to_string(folder.path().join("index.html")).expect("the report");
        Report { html, outcomes }
    })
}

/// A file with this text, in its own directory.
struct Document(TempDir);

impl Document {
    fn of(html: &str) -> Self {
        let document = Self(tempfile::tempdir().expect("a directory"));
        fs::write(document.file(), html).expect("a file");
        document
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("index.html")
    }
}

/// The defects of a page, at two widths and in both colour schemes.
fn blemishes(browser: &mut Browser) -> Vec<String> {
    let mut found = vec![];
    browser.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })");
    for width in [1280, 400] {
        for scheme in ["light", "dark"] {
            browser.show(width, scheme);
            let here = browser.evaluate(include_str!("browser/page.js"));
            let here = here.as_array().expect("a list").iter().filter_map(|b| b.as_str());
            found.extend(here.map(|blemish| format!("{width} px, {scheme}: {blemish}")));
        }
    }
    found.extend(browser.complaints());
    found
}

fn nothing_overflows_and_everything_can_be_read() {
    let document = Document::of(&report().html);
    let mut browser = Browser::start();
    browser.open(&document.file());
    assert_eq!(blemishes(&mut browser), [""; 0]);
    let back = |browser: &mut Browser, scheme| {
        browser.show(1280, scheme);
        browser.evaluate("getComputedStyle(document.body).backgroundColor")
    };
    assert_ne!(back(&mut browser, "light"), back(&mut browser, "dark"));
}

/// The width of A4 without the margins of the page's style, in CSS pixels:
/// (210 - 2 * 12) mm at 96 pixels per 25.4 mm.
const A4: u32 = 703;
/// The least distance of a heading from the end of the page, in points: the
/// margin, 15 mm at 72 points per 25.4 mm, the heading and a line below it.
const FOOT: f64 = 42.5 + 38.0;

fn paper_needs_no_screen() {
    let document = Document::of(&report().html);
    let mut browser = Browser::start();
    browser.open(&document.file());
    let before = unfolded(&mut browser);
    let printed = ["light", "dark"].map(|scheme| {
        browser.show_on_paper(A4, scheme);
        for look in [include_str!("browser/paper.js"), include_str!("browser/page.js")] {
            assert_eq!(browser.evaluate(look), serde_json::json!([]), "{scheme}");
        }
        browser.show(1280, scheme);
        let printed = browser.print();
        assert_eq!(unfolded(&mut browser), before, "what was unfolded for paper only");
        String::from_utf8_lossy(&printed).into_owned()
    });
    let timeless = |printed: &String| -> Vec<String> {
        let dated = |line: &&str| line.starts_with("/CreationDate") || line.starts_with("/ModDate");
        printed.lines().filter(|line| !dated(line)).map(str::to_owned).collect()
    };
    assert!(timeless(&printed[0]) == timeless(&printed[1]), "a dark screen prints as a light one");
    let pages: Vec<_> = printed[0].lines().filter_map(|line| line.strip_prefix("/MediaBox ")).collect();
    // 210 and 297 mm, in points.
    let is_a4 = |page: &&str| page.starts_with("[0 0 595") && page.contains(" 841");
    assert!(!pages.is_empty() && pages.iter().all(is_a4), "{pages:?}");
    let headings: Vec<f64> = printed[0]
        .lines()
        .filter_map(|line| line.strip_prefix("/Dest [")?.split(' ').nth(5)?.parse().ok())
        .collect();
    let on_page = browser.evaluate("document.querySelectorAll('h1, h2, h3, h4').length");
    assert_eq!(on_page.as_u64(), Some(headings.len() as u64));
    assert!(headings.iter().all(|above| *above > FOOT), "a heading at a page's foot: {headings:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// The names of the unfolded arms of the first outcome.
fn unfolded(browser: &mut Browser) -> Vec<String> {
    let open = "[...document.querySelectorAll('article')[0].querySelectorAll('details.arm[open] > summary b')]\
                .map((name) => name.textContent)";
    let open = browser.evaluate(open);
    open.as_array().expect("a list").iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()
}

fn arms_fold_and_are_switched() {
    let Report { html, outcomes } = report();
    let document = Document::of(html);
    let mut browser = Browser::start();
    browser.open(&document.file());
    browser.show(1280, "light");
    assert_eq!(unfolded(&mut browser), ["fault"]);
    // By mouse, and by keyboard.
    browser.click("details.arm[open] > summary");
    assert_eq!(unfolded(&mut browser), [""; 0]);
    browser.evaluate("document.querySelector('details.arm > summary').focus()");
    browser.enter();
    assert_eq!(unfolded(&mut browser), ["control"]);
    browser.enter();
    assert_eq!(unfolded(&mut browser), [""; 0]);
    // Each arm's link unfolds it and folds the others, in this outcome only.
    for (at, arm) in outcomes[0].arms.iter().enumerate() {
        browser.click(&format!("nav.arms a:nth-of-type({})", at + 1));
        // The page handles the click in a later event.
        let begun = Instant::now();
        while unfolded(&mut browser) != [arm.name.as_str()] {
            assert!(begun.elapsed() < PATIENCE, "{}: {:?}", arm.name, unfolded(&mut browser));
        }
    }
    let open = browser.evaluate("document.querySelectorAll('details.arm[open]').length");
    assert_eq!(open.as_u64(), Some(outcomes.len() as u64));
    assert_eq!(browser.complaints(), [""; 0]);
}

fn it_is_read_without_a_script() {
    let document = Document::of(&report().html);
    let mut browser = Browser::start();
    browser.ask("Emulation.setScriptExecutionDisabled", &serde_json::json!({ "value": true }));
    browser.open(&document.file());
    assert_eq!(unfolded(&mut browser), ["fault"]);
    browser.click("details.arm:not([open]) > summary");
    assert_eq!(unfolded(&mut browser), ["control", "fault"]);
    let seen =
        browser.evaluate("document.querySelector('details.arm[open] svg').getBoundingClientRect().height");
    assert!(seen.as_f64() > Some(50.0), "{seen}");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// A long text with HTML in it, as a name, a log message or a cell may contain.
const EVIL: &str = "<script>window.evil = 1; alert(1)</script>\"'><img/src=x onerror=alert(1)></title></svg>\
                    <style>*{display:none}</style>ａ-very-long-word-without-any-place-to-break-a-line-at-all";

/// A report of these outcomes, with every text replaced by [`EVIL`].
fn evil(outcomes: &[Outcome]) -> String {
    let evil = |kernel: &str| {
        let mut outcomes = outcomes.to_vec();
        for outcome in &mut outcomes {
            outcome.kernel = format!("{kernel}{EVIL}").into();
            outcome.kernel_id = Some(EVIL.into());
            outcome.scenario = EVIL.into();
            outcome.reason = Some(EVIL.into());
            outcome.settings.insert(EVIL, EVIL.to_owned());
            outcome.log.push(EVIL.into());
            for arm in &mut outcome.arms {
                arm.name = EVIL.into();
                arm.change = EVIL.into();
                arm.observations.insert(EVIL, format!("{kernel}{EVIL}"));
                arm.because.push(EVIL.into());
                arm.evidence.insert(EVIL, vec![EVIL.into()]);
            }
        }
        outcomes.truncate(1);
        Column::new(format!("{kernel}{EVIL}"), outcomes)
    };
    html(&Page {
        columns: &[evil("one"), evil("other")],
        drawings: &Drawings::new(),
        scenario: &|_| None,
        command: &|_| EVIL.to_owned(),
        pcap: &|_, _| Some(EVIL.to_owned()),
    })
}

fn whatever_is_named_is_text() {
    let document = Document::of(&evil(&report().outcomes));
    let mut browser = Browser::start();
    browser.open(&document.file());
    assert_eq!(blemishes(&mut browser), [""; 0]);
    assert_eq!(browser.evaluate("typeof window.evil"), "undefined");
    assert_eq!(browser.evaluate("document.scripts.length + document.images.length"), 1);
    let shown = browser.evaluate("document.querySelector('h1').innerText");
    assert_eq!(shown.as_str(), Some(EVIL));
    assert_eq!(browser.evaluate("document.querySelector('details.arm b').innerText").as_str(), Some(EVIL));
}

/// The messages of HTML Tidy about a document.
fn tidy(file: &Path) -> String {
    let mut command = Command::new("tidy");
    command.args(["-e", "-q", "--show-warnings", "yes"]).arg(file).stdin(Stdio::null());
    match command.output() {
        Ok(said) => String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned(),
        Err(_) => leave_out("tidy is not installed: nothing to validate with"),
    }
}

fn the_html_is_valid() {
    for html in [&report().html, &evil(&report().outcomes)] {
        assert_eq!(tidy(&Document::of(html).file()), "");
    }
}
