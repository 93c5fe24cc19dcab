//! What containers have printed: lines as they came, each understood once, within bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::timeline::Event;

/// The most that is kept of one line, in bytes.
pub const LINE: usize = 64 << 10;
/// Runtimes write lines in parts that are longer than 16 KiB; this is well below.
const PART: usize = 8 << 10;
/// The most that is kept of one container's log, in bytes and in lines; the oldest lines go first.
pub const BYTES: usize = 32 << 20;
const LINES: usize = 400_000;

/// One printed line.
#[derive(Clone, Debug)]
pub struct Line {
    /// How many restarts the container had before the run that printed it.
    pub run: i32,
    /// When the runtime received it, by the node's clock.
    pub at: Timestamp,
    /// The line, without its end; bytes that are not UTF-8 are replaced.
    pub text: Arc<str>,
    /// What the container's agent recorded with it.
    pub event: Option<Arc<Event>>,
    /// How many bytes of it were cut off.
    pub cut: usize,
}

impl Line {
    /// What a person reads of it: of what the agent recorded, what happened.
    fn shown(&self) -> String {
        self.event
            .as_ref()
            .map_or_else(|| self.text.to_string(), ToString::to_string)
    }
}

/// A container's log as far as it was read.
#[derive(Debug)]
pub(super) struct Log {
    store: Mutex<Store>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Store {
    lines: VecDeque<Line>,
    /// How many lines were dropped to make room.
    dropped: usize,
    bytes: usize,
    ended: bool,
    /// Why lines may be missing for good.
    gaps: Vec<String>,
    /// Why the log cannot be read at the moment.
    outage: Option<String>,
}

/// Why a search of a log ended without a find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing can follow: the Pod is gone and its log was read to the end.
    Ended,
    /// More may follow.
    SoFar,
}

impl Log {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::default(),
            changed: watch::channel(()).0,
        })
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no holder panics")
    }

    /// A reader that sees each line once, from the first one kept on.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        Reader {
            log: Arc::clone(self),
            changed: self.changed.subscribe(),
            next: 0,
        }
    }

    pub(super) fn push(&self, line: Line) {
        let mut store = self.store();
        store.bytes += line.text.len();
        store.lines.push_back(line);
        while store.bytes > BYTES || store.lines.len() > LINES {
            let Some(oldest) = store.lines.pop_front() else { break };
            store.bytes -= oldest.text.len();
            store.dropped += 1;
        }
        drop(store);
        self.changed.send_replace(());
    }

    /// Lines that came under the name of an earlier run although a later one printed them get the right one.
    pub(super) fn relabel(&self, since: Timestamp, run: i32) {
        let mut store = self.store();
        for line in store.lines.iter_mut().rev().take_while(|line| line.at >= since) {
            line.run = run;
        }
    }

    /// The newest line's time and how many of the lines have exactly that time.
    pub(super) fn newest(&self) -> Option<(Timestamp, usize)> {
        let store = self.store();
        let newest = store.lines.back()?.at;
        let same = store.lines.iter().rev().take_while(|line| line.at == newest).count();
        Some((newest, same))
    }

    /// Whether the newest line is a long one that ends with this text. Runtimes write a long line in parts, each with a time of its own, of
    /// which a stream shows the first one's, and a look at the end of a log the last one's.
    pub(super) fn ends_with_part(&self, text: &str) -> bool {
        let store = self.store();
        store.lines.back().is_some_and(|line| {
            line.text.len() > PART && (line.cut > 0 || line.text.ends_with(text.trim_end_matches('\n')))
        })
    }

    /// The run of the newest line.
    pub(super) fn newest_run(&self) -> Option<i32> {
        self.store().lines.back().map(|line| line.run)
    }

    pub(super) fn gap(&self, why: String) {
        self.store().gaps.push(why);
        self.changed.send_replace(());
    }

    pub(super) fn outage(&self, why: Option<String>) {
        self.store().outage = why;
    }

    pub(super) fn end(&self) {
        self.store().ended = true;
        self.changed.send_replace(());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.store().ended
    }

    /// Why the suite may not have seen all that the container printed.
    pub(super) fn trouble(&self) -> Option<String> {
        let store = self.store();
        if let Some(gap) = store.gaps.first() {
            return Some(gap.clone());
        }
        if let Some(outage) = &store.outage {
            return Some(outage.clone());
        }
        if store.dropped > 0 {
            let dropped = store.dropped;
            return Some(format!(
                "its first {dropped} lines were cut: more than {BYTES} bytes or {LINES} lines"
            ));
        }
        let cut = store.lines.iter().find(|line| line.cut > 0)?;
        Some(format!("a line was cut after {LINE} bytes, {} more followed", cut.cut))
    }

    /// A copy of all lines kept.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.store().lines.iter().cloned().collect()
    }

    /// How many lines there were before the first one kept.
    pub(super) fn dropped(&self) -> usize {
        self.store().dropped
    }

    /// How many lines came so far, those that were dropped included.
    pub(super) fn count(&self) -> usize {
        let store = self.store();
        store.dropped + store.lines.len()
    }

    /// Whether the last line is the agent's own word that this run ends. The kernel ends all others with a first process, so nothing comes after.
    pub(super) fn has_said_its_end(&self, run: i32) -> bool {
        let store = self.store();
        let last = store.lines.back().filter(|line| line.run == run);
        let last = last.and_then(|line| line.event.as_ref());
        last.is_some_and(|event| event.event == "exit" && event.number("pid") == Some(1))
    }

    /// The last lines, for a message.
    pub(super) fn last_words(&self) -> String {
        const SHOWN: usize = 5;
        let store = self.store();
        let count = store.dropped + store.lines.len();
        if count == 0 {
            return "it printed nothing".to_owned();
        }
        let last = store.lines.range(store.lines.len().saturating_sub(SHOWN)..);
        let last: Vec<String> = last.map(Line::shown).collect();
        format!("its last lines of {count}: {}", last.join(" ⏎ "))
    }
}

/// Goes through a log line by line, and waits for more.
#[derive(Debug)]
pub(super) struct Reader {
    log: Arc<Log>,
    changed: watch::Receiver<()>,
    next: usize,
}

impl Reader {
    /// Leaves out the lines that are there already.
    pub(super) fn skip_to(&mut self, count: usize) {
        self.next = self.next.max(count);
    }

    /// The first result of `look` on the lines that were not looked at yet.
    pub(super) fn look<T>(&mut self, look: &mut impl FnMut(&Line) -> Option<T>) -> Result<T, Missing> {
        self.changed.mark_unchanged();
        let store = self.log.store();
        let start = self.next.saturating_sub(store.dropped);
        for line in store.lines.range(start.min(store.lines.len())..) {
            self.next = self.next.max(store.dropped) + 1;
            if let Some(found) = look(line) {
                return Ok(found);
            }
        }
        Err(if store.ended { Missing::Ended } else { Missing::SoFar })
    }

    /// Waits until there is something new: a line, the end, or a gap.
    pub(super) async fn changed(&mut self) {
        // The sender lives in the log, which this reader holds.
        let _ = self.changed.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn line(number: i64, run: i32) -> Line {
        Line {
            run,
            at: Timestamp::from_millisecond(number).expect("a time"),
            text: format!("line {number}").into(),
            event: None,
            cut: 0,
        }
    }

    #[test]
    fn the_agents_last_word_is_the_end_of_its_run() {
        let exit = |pid: u32| Line {
            event: Event::parse(
                "main",
                "n",
                &format!(r#"{{"t":1,"nonce":"n","event":"exit","code":0,"pid":{pid}}}"#),
            )
            .map(Arc::new),
            ..line(2, 1)
        };
        let log = Log::new();
        log.push(line(1, 1));
        assert!(!log.has_said_its_end(1));
        log.push(exit(1));
        assert!(log.has_said_its_end(1) && !log.has_said_its_end(0));
        log.push(exit(7));
        assert!(!log.has_said_its_end(1), "another process may go on");
    }

    #[test]
    fn each_line_is_looked_at_once() {
        let log = Log::new();
        let mut reader = log.reader();
        let mut looked = 0;
        for number in 0..100_000 {
            log.push(line(number, 0));
            let found = reader.look(&mut |line: &Line| {
                looked += 1;
                (&*line.text == "line 99999").then_some(())
            });
            assert_eq!(found.is_ok(), number == 99_999);
        }
        assert_eq!(looked, 100_000);
    }

    #[test]
    fn a_hundred_thousand_lines_are_no_work() {
        let log = Log::new();
        let begun = Instant::now();
        for number in 0..100_000 {
            log.push(line(number, 0));
            log.newest();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_too_much_is_dropped_and_told() {
        let log = Log::new();
        for number in 0..LINES as i64 + 2 {
            log.push(line(number, 0));
        }
        assert_eq!(log.count(), LINES + 2);
        assert!(
            log.trouble()
                .is_some_and(|trouble| trouble.starts_with("its first 2 lines were cut"))
        );
    }

    #[test]
    fn lines_of_a_later_run_get_its_number() {
        let log = Log::new();
        (0..4).for_each(|number| log.push(line(number, 0)));
        log.relabel(Timestamp::from_millisecond(2).expect("a time"), 1);
        let runs: Vec<i32> = log.lines().iter().map(|line| line.run).collect();
        assert_eq!(runs, [0, 0, 1, 1]);
    }

    #[test]
    fn a_reader_that_begins_later_sees_later_lines_only() {
        let log = Log::new();
        (0..3).for_each(|number| log.push(line(number, 0)));
        let mut reader = log.reader();
        reader.skip_to(log.count());
        assert_eq!(reader.look(&mut |line: &Line| Some(line.run)), Err(Missing::SoFar));
        log.end();
        assert_eq!(reader.look(&mut |line: &Line| Some(line.run)), Err(Missing::Ended));
    }
}
