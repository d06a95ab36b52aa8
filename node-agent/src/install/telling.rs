//! PURE. How often people are told the same. A primary that writes its file again and again
//! makes the same reports come and go with it, in ever other words.

use std::collections::{BTreeSet, HashMap};
use std::mem::Discriminant;
use std::time::Duration;

use super::report::Report;

/// The same is told once within this time, whatever happens meanwhile.
const SILENCE: Duration = Duration::from_secs(60);

/// What was told, and when.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    told: HashMap<(Discriminant<Report>, String), Told>,
    standing: BTreeSet<Report>,
}

#[derive(Clone, Debug)]
struct Told {
    at: Duration,
    report: Report,
    /// It has come to an end since.
    gone: bool,
}

impl Telling {
    /// Which of those that hold now are to be told now. `now` counts from any beginning.
    pub fn news(&mut self, reports: &BTreeSet<Report>, now: Duration) -> Vec<Report> {
        let holds = |(kind, file): &(Discriminant<Report>, String)| {
            reports.iter().any(|it| it.about() == (*kind, file.as_str()))
        };
        for (about, told) in &mut self.told {
            told.gone |= !holds(about);
        }
        self.told.retain(|_, told| !told.gone || now.saturating_sub(told.at) < SILENCE);
        let mut news = Vec::new();
        for report in reports {
            let (kind, file) = report.about();
            let about = (kind, file.to_owned());
            let quiet = self.told.get(&about).is_some_and(|told| {
                let same = !told.gone && told.report == *report;
                same || now.saturating_sub(told.at) < SILENCE
            });
            if !quiet {
                let report = report.clone();
                self.told.insert(about, Told { at: now, report: report.clone(), gone: false });
                news.push(report);
            }
        }
        news
    }

    /// Whether other things hold now than at the last time.
    pub fn differs(&mut self, reports: &BTreeSet<Report>) -> bool {
        let differs = self.standing != *reports;
        if differs {
            self.standing.clone_from(reports);
        }
        differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn broken(why: &str) -> BTreeSet<Report> {
        [Report::Unusable { file: "10-a.conflist".into(), why: why.into() }].into()
    }

    #[test]
    fn a_file_that_is_written_every_second_is_told_once_a_minute() {
        let mut telling = Telling::default();
        let mut told = 0;
        for second in 0..180 {
            let now = SECOND * second;
            told += telling.news(&broken(&format!("end at column {second}")), now).len();
            told += telling.news(&BTreeSet::new(), now + SECOND / 2).len();
        }
        assert_eq!(told, 3);
    }

    #[test]
    fn what_holds_is_told_once_and_what_is_new_at_once() {
        let mut telling = Telling::default();
        assert_eq!(telling.news(&broken("x"), SECOND).len(), 1);
        assert_eq!(telling.news(&broken("x"), SECOND * 1000).len(), 0, "people know");
        let mut more = broken("x");
        more.insert(Report::NoPrimary);
        assert_eq!(telling.news(&more, SECOND * 1001), [Report::NoPrimary]);
        assert_eq!(telling.news(&broken("y"), SECOND * 1002).len(), 1, "another reason, later");
        assert!(telling.differs(&more) && !telling.differs(&more));
    }

    #[test]
    fn what_comes_back_within_the_silence_and_stays_is_told_after_it() {
        let mut telling = Telling::default();
        telling.news(&broken("x"), SECOND);
        telling.news(&BTreeSet::new(), SECOND * 2);
        assert_eq!(telling.news(&broken("x"), SECOND * 3), []);
        assert_eq!(telling.news(&broken("x"), SECOND * 61).len(), 1);
    }
}
