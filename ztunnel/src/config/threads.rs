//! How many threads carry traffic.

use super::parse;
use super::raw::Reader;

/// Nobody has more use for.
const MOST: usize = 1024;

/// What the machine and Kubernetes give us, in thousandths of a CPU.
#[derive(Clone, Copy, Debug)]
struct Cpus {
    /// Of the node, or as many as we are told that it has.
    node: u64,
    /// What we may use.
    limit: Option<u64>,
    /// What is kept for us.
    request: Option<u64>,
}

pub(super) fn worker_threads(reader: &mut Reader<'_>) -> usize {
    let machine = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = u64::try_from(machine).unwrap_or(1) * 1000;
    let mut cpu = |name| reader.value(name, 0, quantity);
    // Without a limit, Kubernetes hands in the CPUs of the node under this name.
    let node = Some(cpu("ZTUNNEL_CPU_LIMIT")).filter(|millis| *millis > 0);
    let limit = Some(cpu("ZTUNNEL_RESOURCE_CPU_LIMIT")).filter(|millis| *millis > 0);
    let request = Some(cpu("ZTUNNEL_RESOURCE_CPU_REQUEST")).filter(|millis| *millis > 0);
    let cpus = Cpus { node: node.unwrap_or(machine), limit, request };
    reader.value("ZTUNNEL_WORKER_THREADS", cpus.default(), |text| cpus.threads(text))
}

impl Cpus {
    /// As many as the limit; without one a quarter of the node's, or what is kept for us.
    fn default(self) -> usize {
        let threads = match self.limit {
            Some(limit) => whole(limit),
            None => whole(self.node / 4).max(whole(self.request.unwrap_or(0))).max(2),
        };
        threads.clamp(1, MOST)
    }

    /// A number of threads, a share of the CPUs, or 0 for all of them.
    fn threads(self, text: &str) -> Result<usize, String> {
        let all = self.limit.unwrap_or(self.node);
        if let Some(percent) = text.strip_suffix('%') {
            let wrong = || "a share above 0% and up to 100% expected".to_owned();
            let thousandths = quantity(percent).map_err(|_| wrong())?;
            if thousandths == 0 || thousandths > 100_000 {
                return Err(wrong());
            }
            return Ok(whole(all.saturating_mul(thousandths).div_ceil(100_000)).clamp(1, MOST));
        }
        match parse::number(text)? {
            0 => Ok(whole(all).clamp(1, MOST)),
            threads if threads <= MOST => Ok(threads),
            threads => Err(format!("{threads} threads are more than {MOST}")),
        }
    }
}

/// Whole CPUs: half a one needs a thread, too.
fn whole(millis: u64) -> usize {
    usize::try_from(millis.div_ceil(1000)).unwrap_or(MOST)
}

/// Thousandths of `2`, `1.5` or `250m`, as Kubernetes counts CPUs.
fn quantity(text: &str) -> Result<u64, String> {
    let wrong = || "a number of CPUs such as 2, 1.5 or 250m expected".to_owned();
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().map_err(|_| wrong());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !fraction.chars().all(|c| c.is_ascii_digit()) || !(1..=3).contains(&fraction.len()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|whole| whole.checked_add(fraction)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cores: u64) -> Cpus {
        Cpus { node: cores * 1000, limit: None, request: None }
    }

    #[test]
    fn a_number_or_a_share() {
        let cases = [
            ("0", 8, Some(8)),
            ("3", 8, Some(3)),
            ("50%", 8, Some(4)),
            ("1%", 8, Some(1)),
            ("30%", 16, Some(5)),
            ("12.5%", 16, Some(2)),
            ("100%", 2, Some(2)),
            ("0%", 8, None),
            ("200%", 8, None),
            ("%", 8, None),
            ("-1", 8, None),
            ("1.5", 8, None),
            ("5000", 8, None),
        ];
        for (text, cores, expected) in cases {
            assert_eq!(node(cores).threads(text).ok(), expected, "{text} of {cores}");
        }
        let limited = Cpus { limit: Some(2500), ..node(64) };
        assert_eq!(limited.threads("0"), Ok(3));
        assert_eq!(limited.threads("50%"), Ok(2));
    }

    #[test]
    fn the_default_fits_what_we_may_use() {
        assert_eq!(node(1).default(), 2);
        assert_eq!(node(10).default(), 3);
        assert_eq!(Cpus { request: Some(4100), ..node(8) }.default(), 5);
        assert_eq!(Cpus { limit: Some(500), request: Some(4000), ..node(64) }.default(), 1);
    }

    #[test]
    fn cpus_as_kubernetes_counts_them() {
        let cases = [
            ("2", Some(2000)),
            ("1.5", Some(1500)),
            ("0.25", Some(250)),
            ("250m", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("m", None),
            ("1.", None),
            ("1.2345", None),
            ("1.+5", None),
            ("two", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(quantity(text).ok(), expected, "{text}");
        }
    }
}
