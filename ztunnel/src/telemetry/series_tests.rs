//! The metrics stay bounded, whatever peers do.

use std::time::Duration;

use super::labels::TcpLabels;
use super::series::SeriesMap;
use super::tests::{endpoint, outbound, text, workload};
use super::*;

/// A connection of one of many sources.
fn of_source(number: usize) -> ConnectionOpen {
    let name = format!("crowd-{number}");
    ConnectionOpen { src: endpoint("10.0.0.1:40000", workload(&name, &name)), ..outbound() }
}

fn lines(text: &str, name: &str) -> Vec<String> {
    let start = format!("{name}{{");
    text.lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect()
}

#[test]
fn ten_thousand_sources_share_what_is_left() {
    let mut registry = Registry::default();
    let limits = SeriesLimits { most: 100, idle: Duration::from_secs(3600) };
    let settings = Settings { series: limits, ..Settings::default() };
    let telemetry = Telemetry::with_settings(&mut registry, settings);
    for number in 0..10_000 {
        let guard = telemetry.open(of_source(number));
        guard.add_sent(2);
        guard.close(Ok(()));
    }
    let text = text(&registry);
    let opened = lines(&text, "istio_tcp_connections_opened_total");
    assert_eq!(opened.len(), 101, "the bound and the shared one");
    let shared: Vec<_> =
        opened.iter().filter(|line| line.contains("source_workload=\"other\"")).collect();
    let [shared] = shared[..] else { panic!("{shared:?}") };
    assert!(shared.ends_with(" 9900"), "{shared}");
    assert!(!shared.contains("unknown"), "{shared}");
    let names = |line: &str| line.matches("=\"").count();
    assert_eq!(names(shared), names(&opened[0]), "it has the labels of all others");
    let sent = lines(&text, "istio_tcp_sent_bytes_total");
    let sum: u64 =
        sent.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 20_000, "nothing is lost");
    assert!(text.contains("\nsluice_metrics_label_sets 101\n"));
}

#[test]
fn a_label_set_that_nobody_uses_is_forgotten() {
    let second = Duration::from_secs;
    let map = SeriesMap::new(SeriesLimits { most: 2, idle: second(60) });
    let labels = |number| TcpLabels::of(&of_source(number));
    let held = map.get(labels(1), second(0));
    drop(map.get(labels(2), second(0)));
    let full = map.get(labels(3), second(30));
    assert!(Arc::ptr_eq(&full, &map.get(labels(4), second(30))), "no room: shared");
    let new = map.get(labels(3), second(61));
    assert!(!Arc::ptr_eq(&full, &new), "2 was forgotten and made room");
    assert!(Arc::ptr_eq(&held, &map.get(labels(1), second(90))), "an open one is kept");
    drop((new, held));
    assert_eq!(map.all(second(1000)).len(), 0);
}
