//! `faultlab doctor`: which requirements of scenarios this machine meets, and how to get the
//! others.

use std::fmt::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style as Ansi};
use serde_json::json;

use super::Stop;
use faultlab_base::{terminal, text};
use faultlab_machine::here::{Checked, Here};
use faultlab_net::isolation::Privilege;
use faultlab_net::kernel::Kernel;
use faultlab_report::Style;

pub(super) fn doctor(json: bool, style: Style) -> Result<ExitCode, Stop> {
    let executable = super::executable()?;
    let Checked { here, abilities } =
        super::on_runtime(async { Here::find(&executable).await.map_err(Stop::Lab) })?;
    let release = Kernel::running().release;
    let privilege = match here.privilege() {
        Privilege::UserNamespace => "in a user namespace, which cannot touch this machine",
        Privilege::Root => "as root, in network, mount and pid namespaces of its own",
    };
    let mut out = String::new();
    if json {
        let machine = json!({"machine": "here", "kernel": release, "privilege": here.privilege()});
        let _ = writeln!(out, "{}", text::json(&machine));
        for ability in &abilities {
            let _ = writeln!(out, "{}", text::json(ability));
        }
    } else {
        let _ = writeln!(out, "{} {release}, {privilege}", style.bold("here"));
        for ability in &abilities {
            let (mark, colour) = match (&ability.missing, ability.optional) {
                (None, _) => ("yes ", AnsiColor::Green),
                (Some(_), true) => ("no  ", AnsiColor::Yellow),
                (Some(_), false) => ("NO  ", AnsiColor::Red),
            };
            let mark = style.paint(Ansi::new().fg_color(Some(colour.into())), mark);
            let _ = writeln!(out, "  {mark}{}", text::line(&ability.name));
            if let Some(missing) = &ability.missing {
                out.push_str(&style.paragraph("        ", missing));
            }
        }
    }
    if json {
        terminal::print_data(&out)?;
    } else {
        terminal::print(&out)?;
    }
    let able = abilities.iter().all(|a| a.optional || a.missing.is_none());
    Ok(ExitCode::from(if able { 0 } else { 69 }))
}
