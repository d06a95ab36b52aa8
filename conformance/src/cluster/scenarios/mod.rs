//! The scenarios for clusters, in the order of running: what everything else rests on first,
//! what disturbs the mesh last.

mod capture;
mod dns;
mod door;
mod enrolment;
mod harm;
mod kills;
mod network_policy;
mod node_harm;
mod numbers;
mod options;
mod parts;
mod policy;
mod probes;
mod reboot;
mod rollout;
mod services;
mod starting;
mod traffic;
mod uninstall;

use super::scenario::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = capture::scenarios();
    all.extend(policy::scenarios());
    all.extend(traffic::scenarios());
    all.extend(services::scenarios());
    all.extend(dns::scenarios());
    all.extend(probes::scenarios());
    all.extend(network_policy::scenarios());
    all.extend(starting::scenarios());
    all.extend(enrolment::scenarios());
    all.extend(options::scenarios());
    all.extend(harm::scenarios());
    all.extend(parts::scenarios());
    all.extend(node_harm::scenarios());
    all.extend(door::scenarios());
    all.extend(kills::scenarios());
    all.extend(rollout::scenarios());
    all.extend(numbers::scenarios());
    all.extend(reboot::scenarios());
    all.extend(uninstall::scenarios());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_names_and_numbers_are_behaviours() {
        let mut seen = BTreeSet::new();
        for scenario in super::all() {
            let id = scenario.id;
            assert!(seen.insert(id), "{id} twice");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit()));
            assert!(scenario.behaviours.iter().all(|number| (1..=72).contains(number)), "{id}");
        }
    }
}
