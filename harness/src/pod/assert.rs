//! Arrangements and assertions: the same words in two types.
//!
//! [`Given`] is for what the suite arranges: its failures are errors. [`Expect`] is for what the cluster owes: its failures are the reason for
//! `not met`. Nothing else makes one.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

use super::http::{Answer, Http, Unanswered};
use super::log::{Line, Missing};
use super::{Container, Run, state, wait};
use crate::finding::{Finding, Mismatch, Verdict};
use crate::patience;
use crate::timeline::Event;

/// What the suite arranges at a container.
#[derive(Clone, Debug)]
#[must_use]
pub struct Given<'a>(Looking<'a>);

/// What the cluster owes at a container.
#[derive(Clone, Debug)]
#[must_use]
pub struct Expect<'a> {
    label: &'static str,
    about_restarts: bool,
    /// Who is at fault; the container that is looked at, if nobody else is.
    owed_by: Option<&'a Container>,
    looking: Looking<'a>,
}

/// How a container is looked at.
#[derive(Clone, Debug)]
struct Looking<'a> {
    container: &'a Container,
    limit: Duration,
    since: usize,
}

/// Something that did not come.
struct Unmet {
    expected: String,
    observed: String,
}

impl<'a> Given<'a> {
    pub(super) fn new(container: &'a Container) -> Self {
        Self(Looking::new(container))
    }

    /// Waits for that long at most, instead of [`patience::REACTION`].
    pub fn within(mut self, limit: Duration) -> Self {
        self.0.limit = limit;
        self
    }

    /// Leaves out the first lines of the log, that many of them.
    pub fn after(mut self, lines: usize) -> Self {
        self.0.since = lines;
        self
    }

    /// Goes through the log line by line until `look` finds something; `what` completes the sentence “expected …”.
    ///
    /// # Errors
    /// It finds nothing.
    pub async fn prints<T>(&self, what: &str, look: impl FnMut(&Line) -> Option<T>) -> anyhow::Result<T> {
        self.outcome(self.0.prints(what, look).await?)
    }

    /// Waits for a line that satisfies `condition`.
    ///
    /// # Errors
    /// There is none.
    pub async fn prints_line(&self, what: &str, condition: impl Fn(&str) -> bool) -> anyhow::Result<Line> {
        self.prints(what, |line| condition(&line.text).then(|| line.clone()))
            .await
    }

    /// Waits for a recorded event of that name that satisfies `condition`.
    ///
    /// # Errors
    /// There is none.
    pub async fn records(&self, event: &str, condition: impl Fn(&Event) -> bool) -> anyhow::Result<Event> {
        self.prints(&format!("the event “{event}”"), recorded(event, condition))
            .await
    }

    /// Waits until the event of that name was recorded `times` times.
    ///
    /// # Errors
    /// It was not.
    pub async fn records_times(&self, event: &str, times: usize) -> anyhow::Result<()> {
        self.prints(
            &format!("the event “{event}”, {times} times"),
            times_recorded(event, times),
        )
        .await
    }

    /// Looks again and again until `look` returns something; the text that it returns otherwise says what it saw instead.
    ///
    /// # Errors
    /// Nothing is found, or `look` cannot look.
    pub async fn eventually<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        self.outcome(self.0.eventually(what, look).await?)
    }

    /// Waits until a GET request is answered as `right` wants it.
    ///
    /// # Errors
    /// It is not.
    pub async fn answers(
        &self,
        http: &Http,
        path: &str,
        what: &str,
        right: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<Answer> {
        self.outcome(self.0.eventually(what, look_at(http, path, right)).await?)
    }

    /// Waits until the container runs again after `before` and is ready.
    ///
    /// # Errors
    /// It does not.
    pub async fn restarts(&self, before: &Run) -> anyhow::Result<Run> {
        self.outcome(self.0.restarts(before).await?)
    }

    fn outcome<T>(&self, found: Result<T, Unmet>) -> anyhow::Result<T> {
        let name = self.0.container.name();
        found.map_err(|Unmet { expected, observed }| {
            anyhow!("what the check needs at first did not come: expected of {name} {expected}, observed {observed}")
        })
    }
}

impl<'a> Expect<'a> {
    pub(super) fn new(container: &'a Container, label: &'static str) -> Self {
        Self {
            label,
            about_restarts: false,
            owed_by: None,
            looking: Looking::new(container),
        }
    }

    /// Waits for that long at most, instead of [`patience::REACTION`].
    pub fn within(mut self, limit: Duration) -> Self {
        self.looking.limit = limit;
        self
    }

    /// Leaves out the first lines of the log, that many of them.
    pub fn after(mut self, lines: usize) -> Self {
        self.looking.since = lines;
        self
    }

    /// Says that the assertion is about a restart of the container: one that nobody asked for is the finding then, not trouble.
    pub fn about_restarts(mut self) -> Self {
        self.about_restarts = true;
        self
    }

    /// Says that another container than the one that is looked at is at fault if it does not hold.
    pub fn owed_by(mut self, container: &'a Container) -> Self {
        self.owed_by = Some(container);
        self
    }

    /// Asserts that something is so.
    ///
    /// # Errors
    /// `not met` if it is not.
    pub fn holds(&self, holds: bool, expected: impl Into<String>, observed: impl Into<String>) -> Verdict {
        let found = if holds {
            Ok(())
        } else {
            Err(Unmet {
                expected: expected.into(),
                observed: observed.into(),
            })
        };
        self.outcome(found)
    }

    /// Goes through the log line by line until `look` finds something; `what` completes the sentence “expected …”.
    ///
    /// # Errors
    /// `not met` if it finds nothing.
    pub async fn prints<T>(&self, what: &str, look: impl FnMut(&Line) -> Option<T>) -> Result<T, Finding> {
        self.outcome(self.looking.prints(what, look).await?)
    }

    /// Like [`Self::prints`]; the observation begins with what `observed` says then.
    ///
    /// # Errors
    /// Like [`Self::prints`].
    pub async fn prints_else<T>(
        &self,
        what: &str,
        look: impl FnMut(&Line) -> Option<T>,
        observed: impl FnOnce() -> String,
    ) -> Result<T, Finding> {
        let found = self.looking.prints(what, look).await?;
        self.outcome(found.map_err(|unmet| Unmet {
            observed: format!("{}; {}", observed(), unmet.observed),
            ..unmet
        }))
    }

    /// Asserts that a line comes that satisfies `condition`.
    ///
    /// # Errors
    /// `not met` if there is none.
    pub async fn prints_line(&self, what: &str, condition: impl Fn(&str) -> bool) -> Result<Line, Finding> {
        self.prints(what, |line| condition(&line.text).then(|| line.clone()))
            .await
    }

    /// Asserts that an event of that name comes that satisfies `condition`.
    ///
    /// # Errors
    /// `not met` if there is none.
    pub async fn records(&self, event: &str, condition: impl Fn(&Event) -> bool) -> Result<Event, Finding> {
        self.prints(&format!("the event “{event}”"), recorded(event, condition))
            .await
    }

    /// Asserts that the lines before `marker` are the agent's numbered lines `line 1` to `line COUNT`; other lines do not matter.
    ///
    /// # Errors
    /// `not met` if one is missing, repeated or out of order, or if the marker does not come.
    pub async fn numbered_lines(&self, count: usize, marker: &str) -> Verdict {
        let mut seen: Vec<String> = Vec::new();
        let collect = |line: &Line| {
            if &*line.text == marker {
                return Some(());
            }
            if line.text.starts_with("line ") {
                seen.push(line.text.to_string());
            }
            None
        };
        let ended = self.looking.prints(&format!("the line “{marker}”"), collect).await?;
        let expected: Vec<String> = (1..=count).map(|number| format!("line {number}")).collect();
        let found = match ended {
            Ok(()) if seen == expected => Ok(()),
            Ok(()) => {
                let mut pairs = seen.iter().zip(&expected);
                let place = pairs.position(|(seen, expected)| seen != expected);
                let place = place.unwrap_or(count.min(seen.len()));
                Err(Unmet {
                    expected: format!("`line 1` to `line {count}`, each once and in order, before “{marker}”"),
                    observed: format!(
                        "{} lines; number {} is {:?} instead of {:?}",
                        seen.len(),
                        place + 1,
                        seen.get(place),
                        expected.get(place)
                    ),
                })
            }
            Err(unmet) => Err(unmet),
        };
        self.outcome(found)
    }

    /// Looks again and again until `look` returns something; the text that it returns otherwise is the observation.
    ///
    /// # Errors
    /// `not met` if nothing is found; an error if `look` cannot look.
    pub async fn eventually<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> Result<T, Finding> {
        self.outcome(self.looking.eventually(what, look).await?)
    }

    /// Asserts that a GET request is answered as `right` wants it, in the end.
    ///
    /// # Errors
    /// `not met` if it is not; an error if the request does not get as far as the Pod.
    pub async fn answers(
        &self,
        http: &Http,
        path: &str,
        what: &str,
        right: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Finding> {
        self.outcome(self.looking.eventually(what, look_at(http, path, right)).await?)
    }

    /// Asserts that one GET request is answered as `right` wants it, at once.
    ///
    /// # Errors
    /// Like [`Self::answers`].
    pub async fn answers_at_once(
        &self,
        http: &Http,
        path: &str,
        what: &str,
        right: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Finding> {
        let found = look_at(http, path, right)().await?;
        self.outcome(found.map_err(|observed| Unmet {
            expected: what.to_owned(),
            observed,
        }))
    }

    /// Asserts that the container runs again after `before` and is ready.
    ///
    /// # Errors
    /// `not met` if it does not.
    pub async fn restarts(&self, before: &Run) -> Result<Run, Finding> {
        self.outcome(self.looking.restarts(before).await?)
    }

    fn outcome<T>(&self, found: Result<T, Unmet>) -> Result<T, Finding> {
        let container = self.owed_by.unwrap_or(self.looking.container);
        container
            .scene()
            .asserted(self.label, Some(container.name()), found.is_ok());
        found.map_err(|Unmet { expected, observed }| {
            Mismatch::new(self.label, Some(container.name()), expected, observed)
                .about_restarts(self.about_restarts)
                .into()
        })
    }
}

impl<'a> Looking<'a> {
    fn new(container: &'a Container) -> Self {
        Self {
            container,
            limit: patience::REACTION,
            since: 0,
        }
    }

    async fn prints<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Line) -> Option<T>,
    ) -> anyhow::Result<Result<T, Unmet>> {
        let (container, scene) = (self.container, self.container.scene());
        let _waiting = container.waits_for(what);
        let log = container.log()?;
        let mut reader = log.reader();
        reader.skip_to(self.since);
        let begun = Instant::now();
        let mut caught_up = false;
        loop {
            let missing = match reader.look(&mut look) {
                Ok(found) => return Ok(Ok(found)),
                Err(missing) => missing,
            };
            let until = wait::deadline(begun, scene.pods().disturbed, self.limit);
            if missing == Missing::SoFar && Instant::now() < until {
                // Whatever it is, the loop looks.
                let _ = timeout_at(until, reader.changed()).await;
                continue;
            }
            if missing == Missing::SoFar && !caught_up {
                // Nothing counts as missing while the log may lag behind.
                container.catch_up().await?;
                caught_up = true;
                continue;
            }
            let when = match missing {
                Missing::Ended => "by the end of the Pod".to_owned(),
                Missing::SoFar => format!("within {:?}", self.limit),
            };
            return Ok(Err(Unmet {
                expected: format!("{what} {when}"),
                observed: format!("{}; the Pod: {}", log.last_words(), container.describe()),
            }));
        }
    }

    async fn eventually<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<Result<T, Unmet>> {
        let (begun, _waiting) = (Instant::now(), self.container.waits_for(what));
        loop {
            match look().await.context("cannot look")? {
                Ok(found) => return Ok(Ok(found)),
                Err(observed) => {
                    let disturbed = self.container.scene().pods().disturbed;
                    if Instant::now() >= wait::deadline(begun, disturbed, self.limit) {
                        return Ok(Err(Unmet {
                            expected: format!("{what} within {:?}", self.limit),
                            observed,
                        }));
                    }
                    sleep(patience::LOOK_AGAIN).await;
                }
            }
        }
    }

    async fn restarts(&self, before: &Run) -> anyhow::Result<Result<Run, Unmet>> {
        let container = self.container;
        let restarted = |state: &state::PodState| {
            state::status(&state.pod, container.name()).is_some_and(|status| {
                status.restart_count > before.restarts
                    && status.ready
                    && status.state.as_ref().is_some_and(|state| state.running.is_some())
            })
        };
        let limit = self.limit.max(patience::RESTART);
        let restarted = wait::until(container.scene(), container.pod(), "a restart", limit, restarted).await?;
        match restarted {
            Ok(_) => Ok(Ok(container.run()?)),
            Err(wait::TimedOut(observed)) => Ok(Err(Unmet {
                expected: format!("a restart of {} within {limit:?}", container.name()),
                observed,
            })),
        }
    }
}

fn recorded(event: &str, condition: impl Fn(&Event) -> bool) -> impl FnMut(&Line) -> Option<Event> {
    move |line| {
        let found = line.event.as_deref()?;
        (found.event == event && condition(found)).then(|| found.clone())
    }
}

fn times_recorded(event: &str, times: usize) -> impl FnMut(&Line) -> Option<()> {
    let mut seen = 0;
    move |line| {
        seen += usize::from(line.event.as_ref().is_some_and(|found| found.event == event));
        (seen >= times).then_some(())
    }
}

/// One GET request. What the program or its port says is an observation; that the request is not delivered is trouble.
fn look_at(
    http: &Http,
    path: &str,
    right: impl Fn(&Answer) -> bool,
) -> impl AsyncFnMut() -> anyhow::Result<Result<Answer, String>> {
    async move || match http.get(path).await {
        Ok(answer) if right(&answer) => Ok(Ok(answer)),
        Ok(answer) => Ok(Err(answer.to_string())),
        Err(undelivered @ Unanswered::Undelivered(_)) => Err(undelivered.into()),
        Err(unanswered) => Ok(Err(format!("no answer: {unanswered}"))),
    }
}
