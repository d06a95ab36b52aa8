//! What there is: scenarios, and the behaviours that they cover.

use crate::behaviours::coverage;
use crate::{cluster, scenarios};

/// Prints every scenario with its meaning.
pub(crate) fn scenarios() {
    for stage in scenarios::stages() {
        for scenario in stage.scenarios {
            println!("{}/{:<32} {}", stage.name, scenario.id, scenario.meaning);
        }
    }
    for scenario in cluster::scenarios() {
        println!("cluster/{:<32} {}", scenario.id, scenario.meaning);
    }
}

/// Prints every behaviour with the scenarios that cover it.
pub(crate) fn behaviours() {
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
            println!("{group}");
        }
        let mark = if one.is_enough() {
            "✔"
        } else if one.namespaces.is_empty() && one.cluster.is_empty() {
            "✘"
        } else {
            "‼"
        };
        println!("  {mark} {:>2} {}", one.behaviour.number, one.behaviour.title);
        for (level, ids) in [("namespaces", &one.namespaces), ("cluster", &one.cluster)] {
            if !ids.is_empty() {
                println!("       {level}: {}", ids.join(", "));
            }
        }
    }
    let enough = all.iter().filter(|one| one.is_enough()).count();
    let none = all.iter().filter(|one| one.namespaces.is_empty() && one.cluster.is_empty()).count();
    println!(
        "{enough} of {} are covered at the level they need (✔), {} only in namespaces (‼), {none} \
         not at all (✘)",
        all.len(),
        all.len() - enough - none
    );
}
