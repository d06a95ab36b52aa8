//! Which behaviours the scenarios cover, by their numbers in `behaviours`. In one place, since
//! they were told as stories first; those of clusters say it themselves.

/// The behaviours that a scenario covers. Some cover none: they are about what is beyond the
/// list.
pub(crate) fn covers(id: &str) -> &'static [u8] {
    let found = COVERS.iter().find(|(scenario, _)| *scenario == id);
    found.map_or(&[], |(_, behaviours)| behaviours)
}

#[rustfmt::skip]
const COVERS: &[(&str, &[u8])] = &[
    ("captured-as-it-starts", &[1, 2]),
    ("namespace-label", &[28]),
    ("label-captures-a-running-pod", &[3, 67]),
    ("deny-by-principal", &[67]),
    ("older-connections-live-on", &[25]),
    ("older-connections-are-reset", &[25]),
    ("older-connections-are-kept-for-a-time", &[25]),
    ("release-leaves-nothing", &[27, 69]),
    ("label-flips-converge", &[27]),
    ("plaintext-reaches-a-captured-pod", &[4]),
    ("captured-reaches-the-outside", &[3]),
    ("half-close-ends-cleanly", &[13]),
    ("closed-port-ends-at-once", &[13]),
    ("own-address-is-not-proxied", &[5, 6]),
    ("proxy-ports-are-closed", &[7]),
    ("uncaptured-protocols-pass-or-are-blocked", &[8]),
    ("both-families-are-captured", &[9]),
    ("both-addresses-of-a-service", &[9]),
    ("ipv6-switched-off", &[10]),
    ("excluded-port-goes-direct", &[12, 29]),
    ("excluded-network-goes-direct", &[12]),
    ("mistaken-option-changes-nothing", &[29, 71]),
    ("gateways-receive-directly", &[12]),
    ("service-address-is-tunnelled", &[3]),
    ("service-load-is-spread", &[3]),
    ("named-ports-are-each-pods-own", &[3]),
    ("headless-service-by-pod-address", &[3]),
    ("uncaptured-endpoint-is-plain", &[3]),
    ("lookups-follow-the-annotation", &[15]),
    ("ztunnel-upgrade-loses-no-lookup", &[15, 16, 40]),
    ("lookups-wait-for-the-next-ztunnel", &[15, 41]),
    ("probes-pass-where-clear-text-does-not", &[18]),
    ("only-the-node-probes", &[20, 21]),
    ("nat-to-a-probe-port-is-no-probe", &[20]),
    ("forged-probe-source", &[22]),
    ("probe-rules-come-back", &[23, 53]),
    ("probes-without-the-agent", &[23]),
    ("probe-self-test", &[18]),
    ("capture-and-release-under-load", &[24, 26]),
    ("release-ends-proxied-connections", &[26]),
    ("odd-label", &[28]),
    ("agent-absent", &[34]),
    ("agent-hangs", &[35]),
    ("node-local-name-server", &[17]),
    ("name-server-in-a-captured-pod", &[17]),
    ("ztunnel-dies-before-it-is-ready", &[43]),
    ("late-answers-let-nobody-in", &[44]),
    ("user-namespace", &[62]),
    ("second-interface", &[62]),
    ("forged-mark", &[63]),
    ("processes-in-others-namespaces", &[65]),
    ("own-pods-start-on-an-empty-node", &[51]),
    ("no-pod-passes-through", &[61]),
    ("agent-absent-known-pods", &[34]),
    ("ztunnel-absent", &[36]),
    ("api-away", &[37]),
    ("agent-killed-while-it-captures", &[38]),
    ("agent-killed-while-it-releases", &[38]),
    ("agent-killed-during-add", &[38]),
    ("agent-killed-at-each-step-of-add", &[38]),
    ("agent-killed-at-each-step-of-capture", &[38]),
    ("agent-killed-at-each-step-of-repair", &[38]),
    ("agent-killed-at-each-step-of-the-hosts-repair", &[38]),
    ("agent-killed-at-each-step-of-release", &[38]),
    ("agent-and-ztunnel-killed", &[38, 41]),
    ("agent-restart-disturbs-nobody", &[39]),
    ("agent-killed", &[39]),
    ("agent-restart-regains-listeners", &[39]),
    ("ztunnel-upgrade-loses-nothing", &[40]),
    ("ztunnel-killed-under-load", &[41]),
    ("ztunnel-killed", &[41]),
    ("killed-ztunnel-turns-nobody-away", &[41]),
    ("hold-time-over", &[41]),
    ("port-taken", &[42, 64]),
    ("many-at-once", &[60]),
    ("conflist-owned", &[46, 47, 49]),
    ("conflist-after-reboot", &[45, 50]),
    ("rules-flushed", &[52]),
    ("route-deleted", &[52]),
    ("listener-destroyed", &[52]),
    ("ipv6-toggled", &[52]),
    ("flapping", &[52, 71]),
    ("rules-replaced-under-traffic", &[54, 56]),
    ("foreign-table-survives", &[55]),
    ("result-untouched", &[57]),
    ("del-twice", &[58]),
    ("check", &[59]),
    ("status", &[59]),
    ("gc", &[59]),
    ("plugin-killed-at-each-step-of-add", &[60]),
    ("garbage-on-the-sockets", &[66]),
    ("no-namespace-held", &[68]),
    ("hundreds-of-pods-leave-nothing", &[68]),
    ("fresh-node-with-waiting-pods", &[48]),
    ("uninstall", &[69]),
    ("node-condition", &[71]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_scenarios_that_there_are_cover_behaviours() {
        let stages = super::super::stages();
        let known: BTreeSet<_> =
            stages.iter().flat_map(|stage| &stage.scenarios).map(|one| one.id).collect();
        for (id, numbers) in COVERS {
            assert!(known.contains(id), "{id} is no scenario");
            assert!(numbers.iter().all(|number| (1..=72).contains(number)), "{id}");
        }
    }
}
