//! Containers' logs, followed from the start to beyond the Pod's deletion.
//!
//! The end of a stream is not the end of a container: the API server ends a response in the same way when the kubelet restarts or a
//! connection between the two breaks. So a stream that has ended is opened again after the last line until there is nothing new, and the
//! run is over only when the Pod's status says so too.
//!
//! The kubelet opens the log of a container's newest run, which may have begun before the status says so. The first line of a stream that
//! is opened again shows it: it was read before, or it is a later run's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::LogParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::log::{LINE, Line, Log};
use super::state::{Pods, status};
use crate::patience;
use crate::timeline::Event;

/// Follows the log of one container through its restarts until its Pod is gone.
pub(super) struct Follower {
    pub(super) api: Api<Pod>,
    pub(super) pods: watch::Receiver<Pods>,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) container: String,
    /// What proves that an event is the container's own.
    pub(super) nonce: Option<String>,
    pub(super) log: Arc<Log>,
}

/// One run of the container, by what the kubelet says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    restarts: i32,
    id: String,
}

/// How often a run's log was opened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    First,
    Again,
    /// Again, and it is this run's although its first line does not show it.
    Anyway,
}

/// How reading ended.
enum End {
    /// The server closed the stream; whether anything new came.
    Closed { news: bool },
    /// The stream begins after all that was read: it is a later run's.
    Later,
    /// There is no such log any more, or not yet.
    Nothing,
    /// The kubelet says in place of the log that the container has been removed.
    Removed(String),
    /// The API server or the kubelet could not be reached, or the connection broke.
    Broken(String),
}

impl Follower {
    pub(super) async fn follow(mut self) {
        let mut last: Option<Run> = None;
        while let Some(run) = self.next_run(last.as_ref()).await {
            let missed = run.restarts - last.as_ref().map_or(0, |last| last.restarts + 1);
            if missed > 1 {
                let missed = missed - 1;
                self.log
                    .gap(format!("{missed} runs of the container came and went unseen"));
            }
            if missed > 0 {
                // The kubelet keeps one earlier run.
                self.read_run(
                    &Run {
                        restarts: run.restarts - 1,
                        id: String::new(),
                    },
                    true,
                )
                .await;
            }
            self.read_run(&run, false).await;
            last = Some(run);
        }
        self.log.end();
    }

    /// The next run of the container that has something to say; none when the Pod is gone.
    async fn next_run(&mut self, last: Option<&Run>) -> Option<Run> {
        let (uid, container) = (self.uid.clone(), self.container.clone());
        let next = |pods: &Pods| -> Option<Option<Run>> {
            let Some(state) = pods.uid(&uid) else { return Some(None) };
            let begun = status(&state.pod, &container).and_then(|status| {
                let state = status.state.as_ref()?;
                let begun = state.running.is_some() || state.terminated.is_some();
                let run = Run {
                    restarts: status.restart_count,
                    id: status.container_id.clone()?,
                };
                (begun && last.is_none_or(|last| run.restarts > last.restarts)).then_some(run)
            });
            match begun {
                Some(run) if !state.deleted => Some(Some(run)),
                _ => state.deleted.then_some(None),
            }
        };
        let pods = self.pods.wait_for(|pods| next(pods).is_some()).await.ok()?;
        next(&pods)?
    }

    /// Whether the run is over as far as the Pod's status says.
    fn is_over(&self, run: &Run) -> bool {
        let pods = self.pods.borrow();
        let Some(state) = pods.uid(&self.uid).filter(|state| !state.deleted) else {
            return true;
        };
        status(&state.pod, &self.container).is_some_and(|status| {
            let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
            status.restart_count > run.restarts || !running
        })
    }

    fn has_restarted(&self, run: &Run) -> bool {
        let pods = self.pods.borrow();
        let state = pods.uid(&self.uid);
        state
            .and_then(|state| status(&state.pod, &self.container))
            .is_some_and(|status| status.restart_count > run.restarts)
    }

    /// Reads one run's log to its end.
    async fn read_run(&mut self, run: &Run, previous: bool) {
        let mut opened = Opened::First;
        let mut later: Option<Instant> = None;
        let mut closed = false;
        let mut closed_without_news = 0;
        let mut pause = patience::LOOK_AGAIN;
        loop {
            let end = self.read(run, previous, opened).await;
            if self.log.newest_run() == Some(run.restarts) {
                opened = Opened::Again;
            }
            match end {
                End::Closed { .. } if previous => return,
                End::Later => {
                    if self.has_restarted(run) {
                        return;
                    }
                    if self.is_gone() {
                        self.log
                            .gap("it ended before the status reported its last run".to_owned());
                        return;
                    }
                    // Otherwise the log's earlier part was put aside while nobody read it.
                    if later.get_or_insert_with(Instant::now).elapsed() > patience::STATUS {
                        opened = Opened::Anyway;
                    }
                    self.pods_change_within(pause).await;
                }
                End::Closed { news } => {
                    self.log.outage(None);
                    closed = true;
                    opened = Opened::Again;
                    closed_without_news = if news { 0 } else { closed_without_news + 1 };
                    // Twice to the same end: the kubelet has nothing more of a container that does not run.
                    if closed_without_news > 0 && self.is_over(run) {
                        return;
                    }
                    if closed_without_news > 0 {
                        self.pods_change_within(pause).await;
                    }
                }
                // What has been removed had ended. A stream that was closed in good order before that had come to its end.
                End::Removed(why) => {
                    if !closed && !self.log.has_said_its_end(run.restarts) {
                        self.log
                            .gap(format!("it was removed before it was read to its end: {why}"));
                    }
                    self.log.outage(None);
                    return;
                }
                End::Nothing if previous => {
                    self.log
                        .gap("the log of an earlier run is not there any more".to_owned());
                    return;
                }
                End::Nothing => {
                    if self.is_over(run) {
                        return;
                    }
                    self.pods_change_within(pause).await;
                }
                End::Broken(why) => {
                    closed = false;
                    if self.is_gone() {
                        if !self.log.has_said_its_end(run.restarts) {
                            self.log.gap(format!("its log broke off before its end: {why}"));
                        }
                        self.log.outage(None);
                        return;
                    }
                    self.log
                        .outage(Some(format!("its log cannot be read at the moment: {why}")));
                    sleep(pause).await;
                }
            }
            pause = (pause * 2).min(patience::RECONNECT);
        }
    }

    fn is_gone(&self) -> bool {
        self.pods.borrow().uid(&self.uid).is_none_or(|state| state.deleted)
    }

    async fn pods_change_within(&mut self, limit: Duration) {
        // Whether it changed or time is up, the caller looks again.
        let _ = timeout(limit, self.pods.changed()).await;
    }

    /// Opens the log after the last known line and reads until the stream ends.
    async fn read(&self, run: &Run, previous: bool, opened: Opened) -> End {
        let known = self.log.newest();
        let since_time = known
            .filter(|_| opened != Opened::First)
            .map(|(newest, _)| whole_seconds(newest));
        let parameters = LogParams {
            container: Some(self.container.clone()),
            follow: !previous,
            previous,
            timestamps: true,
            since_time,
            ..LogParams::default()
        };
        let stream = match timeout(patience::API, self.api.log_stream(&self.pod, &parameters)).await {
            Ok(Ok(stream)) => stream,
            // The container is not there yet or not any more.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 404) => return End::Nothing,
            Ok(Err(error)) => return End::Broken(error.to_string()),
            Err(_) => return End::Broken(format!("no answer for {:?}", patience::API)),
        };
        let mut lines = Lines::new(stream);
        let mut known = Known(known);
        let (mut opening, mut news) = (true, false);
        loop {
            let (bytes, cut) = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return End::Closed { news },
                Err(error) => return End::Broken(error.to_string()),
            };
            let text = String::from_utf8_lossy(&bytes);
            let Some((at, text)) = split_time(&text) else {
                // A line of the kubelet's own in place of the log.
                let why = text.trim_end().to_owned();
                let removed =
                    text.starts_with("unable to retrieve container logs") || text.contains("no such file or directory");
                return if removed { End::Removed(why) } else { End::Broken(why) };
            };
            let is_known = known.has(at);
            match opened {
                _ if !opening => {}
                Opened::First if is_known && !previous => {
                    // The first stream of the run before was this one's already.
                    self.log.relabel(at, run.restarts);
                    self.log.gap("the log of an earlier run was not read".to_owned());
                }
                Opened::Again if !is_known => return End::Later,
                Opened::Anyway if !is_known && self.log.newest_run() == Some(run.restarts) => {
                    self.log
                        .gap("lines may be missing after the log was opened again".to_owned());
                }
                Opened::First | Opened::Again | Opened::Anyway => {}
            }
            opening = false;
            if !is_known {
                news = true;
                self.log.push(self.line(run.restarts, at, text, cut));
            }
        }
    }

    fn line(&self, run: i32, at: Timestamp, text: &str, cut: usize) -> Line {
        let event = self
            .nonce
            .as_ref()
            .and_then(|nonce| Event::parse(&self.container, nonce, text));
        Line {
            run,
            at,
            text: text.into(),
            event: event.map(Arc::new),
            cut,
        }
    }
}

/// What was read before: a stream that is opened again begins at a full second.
struct Known(Option<(Timestamp, usize)>);

impl Known {
    /// Whether the next line, of that time, was read before.
    fn has(&mut self, at: Timestamp) -> bool {
        match &mut self.0 {
            Some((newest, _)) if at < *newest => true,
            Some((newest, left)) if at == *newest && *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// The API takes whole seconds, and includes the lines of that second.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A line's time, which the kubelet puts before it, and its text.
fn split_time(line: &str) -> Option<(Timestamp, &str)> {
    let (time, text) = line.split_once(' ').unwrap_or((line, ""));
    Some((time.parse().ok()?, text))
}

/// A stream's lines, each bounded in length.
struct Lines<S> {
    stream: S,
}

impl<S: AsyncBufRead + Unpin> Lines<S> {
    fn new(stream: S) -> Self {
        Self { stream }
    }

    /// The next line without its end, and how many of its bytes were left out.
    async fn next(&mut self) -> io::Result<Option<(Vec<u8>, usize)>> {
        let (mut line, mut cut, mut any) = (Vec::new(), 0, false);
        loop {
            let available = self.stream.fill_buf().await?;
            if available.is_empty() {
                return Ok(any.then_some((line, cut)));
            }
            any = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            let room = part.len().min(LINE.saturating_sub(line.len()));
            line.extend_from_slice(&part[..room]);
            cut += part.len() - room;
            let used = end.map_or(available.len(), |end| end + 1);
            self.stream.consume_unpin(used);
            if end.is_some() {
                return Ok(Some((line, cut)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_cut() {
        let mut text = vec![b'y'; LINE + 7];
        text.extend_from_slice(b"\nnext");
        let mut lines = Lines::new(Cursor::new(text));
        let (line, cut) = lines.next().await.expect("no error").expect("a line");
        assert_eq!((line.len(), cut), (LINE, 7));
        assert_eq!(lines.next().await.expect("no error"), Some((b"next".to_vec(), 0)));
        assert_eq!(lines.next().await.expect("no error"), None);
    }

    #[test]
    fn a_time_stands_before_the_text() {
        let (time, text) = split_time("2026-01-31T12:00:00.5Z GET / HTTP/1.1").expect("a line");
        assert_eq!((time, text), (at("2026-01-31T12:00:00.5Z"), "GET / HTTP/1.1"));
        assert_eq!(split_time("2026-01-31T12:00:00Z").map(|(_, text)| text), Some(""));
        assert_eq!(split_time("unable to retrieve container logs for containerd://1"), None);
        assert_eq!(whole_seconds(at("2026-01-31T12:00:00.9Z")), at("2026-01-31T12:00:00Z"));
    }

    #[test]
    fn what_was_read_before_is_known_again() {
        let newest = at("2026-01-31T12:00:00.5Z");
        let mut known = Known(Some((newest, 2)));
        assert!(known.has(at("2026-01-31T12:00:00.1Z")));
        assert!(known.has(newest) && known.has(newest));
        assert!(!known.has(newest), "a third line of the same instant is new");
        assert!(!known.has(at("2026-01-31T12:00:00.6Z")));
    }
}
