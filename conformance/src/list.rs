//! What there is: scenarios, and the behaviours that they cover.

use std::io::{self, ErrorKind, Write};

use crate::behaviours::coverage;
use crate::{cluster, scenarios};

/// Prints a list; who has read enough of it may close the pipe.
///
/// # Errors
/// The system's answer.
pub(crate) fn print(lines: &[String]) -> io::Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Every scenario with its meaning.
pub(crate) fn scenarios() -> Vec<String> {
    let mut lines = Vec::new();
    for stage in scenarios::stages() {
        for scenario in stage.scenarios {
            lines.push(format!("{}/{:<32} {}", stage.name, scenario.id, scenario.meaning));
        }
    }
    for scenario in cluster::scenarios() {
        lines.push(format!("cluster/{:<32} {}", scenario.id, scenario.meaning));
    }
    lines
}

/// Every behaviour with the scenarios that cover it.
pub(crate) fn behaviours() -> Vec<String> {
    let mut lines = Vec::new();
    let stages = scenarios::stages();
    let scenarios = stages.iter().flat_map(|stage| &stage.scenarios);
    let mut lab: Vec<_> = scenarios.map(|one| (one.id, one.behaviours)).collect();
    // The same scenario runs in several address families.
    lab.sort_unstable();
    lab.dedup();
    let cluster: Vec<_> = cluster::scenarios().iter().map(|one| (one.id, one.behaviours)).collect();
    let all = coverage(&lab, &cluster);
    let mut group = "";
    for one in &all {
        if one.behaviour.group != group {
            group = one.behaviour.group;
            lines.push(group.to_owned());
        }
        let mark = if one.is_enough() {
            "✔"
        } else if one.namespaces.is_empty() && one.cluster.is_empty() {
            "✘"
        } else {
            "‼"
        };
        lines.push(format!("  {mark} {:>2} {}", one.behaviour.number, one.behaviour.title));
        for (level, ids) in [("namespaces", &one.namespaces), ("cluster", &one.cluster)] {
            if !ids.is_empty() {
                lines.push(format!("       {level}: {}", ids.join(", ")));
            }
        }
    }
    let enough = all.iter().filter(|one| one.is_enough()).count();
    let none = all.iter().filter(|one| one.namespaces.is_empty() && one.cluster.is_empty()).count();
    lines.push(format!(
        "{enough} of {} are covered at the level they need (✔), {} only in namespaces (‼), {none} \
         not at all (✘)",
        all.len(),
        all.len() - enough - none
    ));
    lines
}
