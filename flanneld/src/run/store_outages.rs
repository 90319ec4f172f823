//! When the lease store is away while flanneld runs: what the log says of it. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long a store may not answer before that is logged: one failed attempt is none.
const GRACE: Duration = Duration::from_secs(1);
/// Outages that are logged one by one within [`PERIOD`]; more are summarized.
const MAX_LOGGED: usize = 3;
/// Time between two summaries.
const PERIOD: Duration = Duration::from_secs(600);

/// Outages so far, as far as the log needs them.
#[derive(Debug, Default)]
pub(super) struct Outages {
    current: Option<Outage>,
    /// When those of the last [`PERIOD`] were logged.
    logged: VecDeque<Instant>,
    summary: Option<Summary>,
}

#[derive(Debug)]
struct Outage {
    began: Instant,
    logged: bool,
    error: String,
}

/// Of the present [`PERIOD`].
#[derive(Debug)]
struct Summary {
    until: Instant,
    outages: u32,
    away: Duration,
    /// Of the latest outage.
    error: String,
}

/// A line of the log.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line {
    Warning(String),
    Info(String),
}

impl Summary {
    fn until(until: Instant) -> Self {
        Self { until, outages: 0, away: Duration::ZERO, error: String::new() }
    }
}

impl Outages {
    /// Notes what came of the latest attempt.
    pub(super) fn note(&mut self, error: Option<&str>, now: Instant) -> Option<Line> {
        if let Some(error) = error {
            let outage = Outage { began: now, logged: false, error: String::new() };
            self.current.get_or_insert(outage).error = error.to_owned();
            return None;
        }
        let outage = self.current.take().filter(|outage| outage.logged)?;
        let away = now - outage.began;
        if let Some(summary) = &mut self.summary {
            summary.away += away;
            summary.error = outage.error;
            return None;
        }
        Some(Line::Info(format!("the lease store answers again after {} seconds", away.as_secs())))
    }

    /// When [`Self::tick`] may have something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        let unlogged = self.current.as_ref().filter(|outage| !outage.logged);
        let start = unlogged.map(|outage| outage.began + GRACE);
        start.into_iter().chain(self.summary.as_ref().map(|summary| summary.until)).min()
    }

    /// What is to be logged by now.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Line> {
        if let Some(outage) = &mut self.current
            && !outage.logged
            && now >= outage.began + GRACE
        {
            outage.logged = true;
            if let Some(summary) = &mut self.summary {
                summary.outages += 1;
                return None;
            }
            self.logged.retain(|at| now - *at < PERIOD);
            self.logged.push_back(now);
            let error = &outage.error;
            let mut line = "the lease store gives no usable answer; traffic and peers stay as they are, changes of other nodes \
                 may not be seen, flanneld retries with backoff"
                .to_owned();
            if self.logged.len() > MAX_LOGGED {
                line += &format!(
                    "; this is outage {} within {} minutes: the next ones are summarized",
                    self.logged.len(),
                    PERIOD.as_secs() / 60
                );
                self.summary = Some(Summary::until(now + PERIOD));
            }
            return Some(Line::Warning(format!("{line}: {error}")));
        }
        let summary = self.summary.as_mut().filter(|summary| summary.until <= now)?;
        let minutes = PERIOD.as_secs() / 60;
        if summary.outages == 0 && self.current.is_none() {
            self.summary = None;
            self.logged.clear();
            return Some(Line::Info(format!("the lease store has answered for {minutes} minutes")));
        }
        let Summary { outages, mut away, mut error, .. } =
            std::mem::replace(summary, Summary::until(now + PERIOD));
        if let Some(outage) = &mut self.current {
            away += now - outage.began;
            outage.began = now;
            error.clone_from(&outage.error);
        }
        let now = if self.current.is_some() { "gives none now" } else { "answers again" };
        let line = format!(
            "the lease store gave no usable answer {outages} more times in the last {minutes} minutes, for {} seconds in all, \
             and {now}; traffic and peers stay as they are, flanneld retries with backoff: {error}",
            away.as_secs()
        );
        Some(Line::Warning(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets the store be away for `away` seconds; returns the lines and the time after it.
    fn outage(outages: &mut Outages, mut now: Instant, away: u32) -> (Vec<Line>, Instant) {
        let mut lines = Vec::from_iter(outages.note(Some("refused"), now));
        for _ in 0..away {
            now += SECOND;
            lines.extend(outages.tick(now));
        }
        lines.extend(outages.note(None, now));
        (lines, now)
    }

    fn texts(lines: &[Line]) -> String {
        let text = |line: &Line| match line {
            Line::Warning(text) => format!("W {text}\n"),
            Line::Info(text) => format!("I {text}\n"),
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn start_end_and_duration_are_logged_and_one_failed_attempt_is_not() {
        let (mut outages, now) = (Outages::default(), Instant::now());
        assert_eq!(outages.note(Some("busy"), now), None);
        assert_eq!(outages.due(), Some(now + GRACE));
        assert_eq!(outages.note(None, now + GRACE / 2), None);
        assert_eq!((outages.due(), outages.tick(now + GRACE)), (None, None));

        let (lines, _) = outage(&mut outages, now + SECOND, 90);
        let text = texts(&lines);
        assert!(text.starts_with("W the lease store gives no usable answer; traffic"), "{text}");
        assert!(text.contains("retries with backoff: refused\n"), "{text}");
        assert!(text.ends_with("I the lease store answers again after 90 seconds\n"), "{text}");
        assert_eq!(lines.len(), 2, "{text}");
    }

    #[test]
    fn a_store_that_comes_and_goes_is_summarized_until_it_stays() {
        let (mut outages, mut now) = (Outages::default(), Instant::now());
        let mut lines = Vec::new();
        for _ in 0..100 {
            let (more, after) = outage(&mut outages, now, 5);
            lines.extend(more);
            now = after + 5 * SECOND;
            lines.extend(outages.tick(now));
        }
        let text = texts(&lines);
        assert!(text.contains("this is outage 4 within 10 minutes: the next ones are summarized"), "{text}");
        assert!(
            text.contains("gave no usable answer 60 more times in the last 10 minutes, for 302 seconds"),
            "{text}"
        );
        assert_eq!(lines.len(), 8, "three outages, a fourth, and a summary:\n{text}");
        now += PERIOD;
        assert!(texts(&Vec::from_iter(outages.tick(now))).contains("36 more times"));
        now += PERIOD;
        assert_eq!(
            outages.tick(now),
            Some(Line::Info("the lease store has answered for 10 minutes".to_owned()))
        );
        assert_eq!(outage(&mut outages, now, 5).0.len(), 2);
    }
}
