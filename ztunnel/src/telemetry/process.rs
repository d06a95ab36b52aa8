//! What the process itself takes: read from the kernel when somebody asks.

use std::fmt::Error;
use std::fs;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Ticks of a second in `/proc`: fixed in the kernel's interface to user space on every
/// architecture that we build for (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Registers what is known of the program and its process: `istio_build`, `process_*`,
/// and `tokio_*`, the sums over all `runtimes`.
pub fn register_process(registry: &mut Registry, runtimes: Vec<Handle>) {
    let build = Family::<BuildLabels, Gauge>::default();
    let tag = env!("CARGO_PKG_VERSION");
    build.get_or_create(&BuildLabels { component: "ztunnel", tag }).set(1);
    registry.register("istio_build", "Which program and version this is", build);
    registry.register_collector(Box::new(Process { runtimes, started: OnceLock::new() }));
}

/// Labels of `istio_build`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    component: &'static str,
    tag: &'static str,
}

#[derive(Debug)]
struct Process {
    runtimes: Vec<Handle>,
    started: OnceLock<Option<f64>>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::of)
        {
            let cpu = ConstCounter::new(stat.cpu_seconds);
            put(encoder, "process_cpu_seconds", "CPU time of user and system", &cpu)?;
            gauge(encoder, "process_threads", "Threads", Some(stat.threads))?;
            let started = self.started.get_or_init(|| stat.started_at());
            if let Some(started) = *started {
                let name = "process_start_time_seconds";
                put(encoder, name, "Start of the process", &ConstGauge::new(started))?;
            }
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |field| number_after(&status, field).map(|kib| kib * 1024.0);
        gauge(encoder, "process_resident_memory_bytes", "Memory in use", kib("VmRSS:"))?;
        gauge(encoder, "process_virtual_memory_bytes", "Memory mapped", kib("VmSize:"))?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let most = number_after(&limits, "Max open files");
        gauge(encoder, "process_open_fds", "Open descriptors", open_descriptors())?;
        gauge(encoder, "process_max_fds", "Descriptors that may be open", most)?;
        self.tasks(encoder)
    }
}

impl Process {
    /// A task that is never finished is seen in here, whichever thread it lives on.
    fn tasks(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        #[expect(clippy::cast_precision_loss, reason = "counts of tasks and threads are small")]
        let sum = |of: fn(&RuntimeMetrics) -> usize| {
            let all = self.runtimes.iter().map(|runtime| of(&runtime.metrics()));
            Some(all.sum::<usize>() as f64)
        };
        let threads = sum(RuntimeMetrics::num_workers);
        gauge(encoder, "tokio_workers", "Threads of all runtimes", threads)?;
        let alive = sum(RuntimeMetrics::num_alive_tasks);
        gauge(encoder, "tokio_alive_tasks", "Tasks of all runtimes", alive)?;
        let queued = sum(RuntimeMetrics::global_queue_depth);
        gauge(encoder, "tokio_global_queue_depth", "Tasks that wait for a thread", queued)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<f64>,
) -> Result<(), Error> {
    value.map_or(Ok(()), |value| put(encoder, name, help, &ConstGauge::new(value)))
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_after_boot: f64,
}

impl Stat {
    /// See proc(5). The name of the program, in brackets, may hold anything.
    fn of(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        // The state, after the name, is the field of number 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            threads: field(20)?,
            started_after_boot: field(22)? / TICKS,
        })
    }

    /// Seconds since 1970.
    fn started_at(&self) -> Option<f64> {
        let boot = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        Some(boot + self.started_after_boot)
    }
}

/// The number in the line that begins with `field`.
fn number_after(text: &str, field: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Without the one that counts them.
fn open_descriptors() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::{Duration, Instant};

    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::worker::Workers;

    #[test]
    fn a_program_may_be_called_anything() {
        let text = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1000 1 1";
        let stat = Stat { cpu_seconds: 3.0, threads: 4.0, started_after_boot: 10.0 };
        assert_eq!(Stat::of(text), Some(stat));
        assert_eq!(Stat::of("7 (a"), None);
    }

    fn text_of(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    fn value_in(text: &str, name: &str) -> f64 {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn tasks_are_counted_wherever_they_live() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let mut registry = Registry::default();
        let runtimes = workers.all().iter().map(|worker| worker.handle().clone()).collect();
        register_process(&mut registry, runtimes);
        let text = text_of(&registry);
        assert_eq!(value_in(&text, "tokio_workers"), 2.0, "{text}");
        assert_eq!(value_in(&text, "tokio_alive_tasks"), 0.0, "{text}");
        let (first, second) = (&workers.all()[0], &workers.all()[1]);
        let tracker = TaskTracker::new();
        let (end, ended) = oneshot::channel::<()>();
        first.spawn(&tracker, std::future::pending::<()>());
        second.spawn(&tracker, std::future::pending::<()>());
        second.spawn(&tracker, async move { drop(ended.await) });
        assert_eq!(value_in(&text_of(&registry), "tokio_alive_tasks"), 3.0);
        drop(end);
        let start = Instant::now();
        while value_in(&text_of(&registry), "tokio_alive_tasks") != 2.0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", text_of(&registry));
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_process_tells_what_it_takes() {
        let mut registry = Registry::default();
        register_process(&mut registry, Vec::new());
        let text = text_of(&registry);
        let value = |name: &str| value_in(&text, name);
        assert!(value("process_resident_memory_bytes") > 100_000.0, "{text}");
        assert!(value("process_open_fds") >= 3.0, "{text}");
        assert!(value("process_max_fds") >= value("process_open_fds"), "{text}");
        assert!(value("process_start_time_seconds") > 1_600_000_000.0, "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{text}");
        assert!(text.contains("istio_build{component=\"ztunnel\",tag="), "{text}");
    }
}
