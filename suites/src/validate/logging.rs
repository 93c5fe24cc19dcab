//! Log shippers: what main writes to a file arrives where the profile says, all of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use regex::Regex;
use sidecheck::agent;
use sidecheck::agent::Statement;
use sidecheck::pod::{Expect, Line};
use sidecheck::profile::{Claim, Delivers};
use sidecheck::{Container, Finding, ScenarioPod, Verdict, patience};

use crate::properties::WORKS;

crate::role! {
    "validate/logging"
    shared {
        first_lines_arrive,
        every_line_once_and_in_order,
        long_lines_stay_whole,
        any_bytes_pass,
        rotation_by_rename_loses_nothing,
        truncation_loses_nothing,
        half_lines_are_not_glued,
        files_that_appear_whole_are_read,
        several_files_are_followed,
    }
    last {
        last_lines_survive_shutdown,
        an_unfinished_line_is_delivered,
    }
    own {
        resumes_without_loss [Classic, Native],
        waits_for_a_sink_that_is_away [Classic, Native],
        a_kill_loses_nothing [Classic, Native],
        a_new_file_with_an_old_inode_is_read [Classic, Native],
    }
}

/// The log, as main mounts it.
const LOG: &str = "/logs/app.log";
/// From one line to the next at 1,000 lines a second.
const RATE: Duration = Duration::from_millis(1);
/// Where the sink listens for lines, and for requests with lines.
const SINK: &str = "127.0.0.1:5170";
const HTTP_SINK: &str = "127.0.0.1:5171";

/// What is asserted of numbered lines, and where lines may arrive twice.
const EVERY_LINE: &str = "every line, once and in order";
const NO_LOSS: &str = "every line arrives";

/// Where the sidecar delivers.
struct Delivery {
    sidecar: Container,
    to: Container,
    /// The lines that have been delivered so far.
    since: usize,
}

impl Delivery {
    /// From now on.
    fn of(pod: &ScenarioPod) -> anyhow::Result<Self> {
        let mut delivery = Self::from_the_start(pod)?;
        delivery.since = delivery.to.line_count()?;
        Ok(delivery)
    }

    fn from_the_start(pod: &ScenarioPod) -> anyhow::Result<Self> {
        let sidecar = pod.sidecar();
        let to = match pod.profile()?.logging().delivers {
            Delivers::Stdout => sidecar.clone(),
            _ => pod.container("sink"),
        };
        Ok(Self { sidecar, to, since: 0 })
    }

    /// What the sidecar owes where it delivers.
    fn expect(&self, label: &'static str) -> Expect<'_> {
        let expect = self.to.expect(label).owed_by(&self.sidecar);
        expect.after(self.since).within(patience::DELIVERY)
    }

    /// Goes through what arrives until `look` finds something.
    async fn brings<T>(
        &self,
        label: &'static str,
        what: &str,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Finding> {
        let seen = RefCell::new((0, String::new()));
        let look = |line: &Line| {
            let record = record(line)?;
            let mut seen = seen.borrow_mut();
            *seen = (seen.0 + 1, tail(record));
            look(record)
        };
        let observed = || match &*seen.borrow() {
            (0, _) => "nothing arrives".to_owned(),
            (count, end) => format!("{count} other records arrive, the last one ends with “{end}”"),
        };
        self.expect(label).prints_else(what, look, observed).await
    }

    /// Waits for a record with that text; returns the record.
    async fn brings_text(&self, label: &'static str, text: &str) -> Result<String, Finding> {
        let what = format!("a record with “{text}”");
        self.brings(label, &what, |record| record.contains(text).then(|| record.to_owned()))
            .await
    }

    /// The lines `word 1` to `word COUNT` arrive before `marker` does, each of them once and in order.
    async fn brings_lines(&self, word: &str, count: u64, marker: &str) -> Verdict {
        let (line, seen) = (numbered(word)?, RefCell::new(Vec::new()));
        let look = |line_of_log: &Line| {
            let record = record(line_of_log)?;
            seen.borrow_mut().extend(numbers_in(record, &line));
            record.contains(marker).then_some(())
        };
        let observed = || missing(&seen.borrow(), word, count).unwrap_or(format!("no “{marker}” after them"));
        let expected = format!("the lines “{word} 1” to “{word} {count}”");
        let what = format!("{expected} and “{marker}”");
        self.expect(EVERY_LINE).prints_else(&what, look, observed).await?;
        let numbers = seen.take();
        let wrong = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        let observed = missing(&numbers, word, count).or_else(|| {
            let again = numbers.len() as u64 - count;
            (again > 0).then(|| format!("{again} of them arrive again"))
        });
        let observed =
            observed.or_else(|| wrong.map(|pair| format!("“{word} {}” before “{word} {}”", pair[0], pair[1])));
        let expect = self.expect(EVERY_LINE);
        expect.holds(observed.is_none(), expected, observed.unwrap_or_default())
    }

    /// The lines `word 1` to `word COUNT` arrive, in any order and some of them perhaps twice; how many do is noted.
    async fn loses_none(&self, pod: &ScenarioPod, word: &str, count: u64) -> Verdict {
        let (line, seen) = (numbered(word)?, RefCell::new(Vec::new()));
        let look = |line_of_log: &Line| {
            let mut seen = seen.borrow_mut();
            seen.extend(numbers_in(record(line_of_log)?, &line));
            (seen.len() as u64 >= count && missing(&seen, word, count).is_none()).then_some(())
        };
        let observed = || missing(&seen.borrow(), word, count).unwrap_or_default();
        let what = format!("the lines “{word} 1” to “{word} {count}”");
        self.expect(NO_LOSS).prints_else(&what, look, observed).await?;
        let again = seen.borrow().len() as u64 - count;
        if again > 0 {
            pod.noted(format!("{again} of {count} lines arrived again"));
        }
        Ok(())
    }
}

/// The lines `word N`, with their numbers.
fn numbered(word: &str) -> anyhow::Result<Regex> {
    Ok(Regex::new(&format!(r"\b{word} (\d+)\b"))?)
}

/// The numbers of the lines in a record.
fn numbers_in(record: &str, line: &Regex) -> impl Iterator<Item = u64> {
    line.captures_iter(record).filter_map(|found| found[1].parse().ok())
}

/// Which of the lines `word 1` to `word COUNT` have not arrived.
fn missing(numbers: &[u64], word: &str, count: u64) -> Option<String> {
    let there: BTreeSet<u64> = numbers.iter().copied().collect();
    let missing: Vec<u64> = (1..=count).filter(|number| !there.contains(number)).collect();
    let first = missing.first()?;
    Some(match missing.len() as u64 {
        all if all == count => "none of them arrives".to_owned(),
        1 => format!("“{word} {first}” is missing"),
        some => format!("{some} of them are missing, the first one is “{word} {first}”"),
    })
}

/// What a line of the log of a container says to have been delivered.
fn record(line: &Line) -> Option<&str> {
    match line.event.as_deref() {
        Some(event) if event.event == "received" => Some(event.text("line")),
        Some(_) => None,
        None => Some(&line.text),
    }
}

/// Has main write the end of what a check writes.
async fn mark(main: &Container, marker: &str) -> anyhow::Result<()> {
    main.arrange(agent::append_text(LOG, marker)).await.map(drop)
}

/// A line that main writes now arrives.
async fn works(pod: &ScenarioPod) -> Verdict {
    let delivery = Delivery::of(pod)?;
    // The same line may have been delivered before the sidecar was restarted.
    let line = format!("a line after {} others", delivery.since);
    pod.main().arrange(agent::append_text(LOG, &line)).await?;
    delivery.brings_text(WORKS, &line).await?;
    Ok(())
}

/// What stood in the file when the sidecar began.
async fn first_lines_arrive(pod: &ScenarioPod) -> Verdict {
    let delivery = Delivery::from_the_start(pod)?;
    mark(&pod.main(), "the end of the first lines").await?;
    delivery.brings_lines("first", 5, "the end of the first lines").await
}

/// A thousand lines a second for twenty seconds.
async fn every_line_once_and_in_order(pod: &ScenarioPod) -> Verdict {
    const LINES: u64 = 20_000;
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    main.arrange(agent::append(LOG, LINES).of("steady").every(RATE).quietly())
        .await?;
    mark(&main, "the end of the steady lines").await?;
    delivery
        .brings_lines("steady", LINES, "the end of the steady lines")
        .await
}

/// A line that is longer than what container runtimes hold in one piece arrives as one record, from its first to its last letter.
async fn long_lines_stay_whole(pod: &ScenarioPod) -> Verdict {
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    let line = format!("long-begin {} long-end", "0123456789".repeat(3_000));
    main.arrange(agent::append_text(LOG, &line)).await?;
    let record = delivery.brings_text("a long line arrives", "long-begin").await?;
    let observed = format!("a record of {} bytes that ends with “{}”", record.len(), tail(&record));
    delivery.expect("a long line is one record").holds(
        record.contains(&line),
        format!("one record with all {} bytes", line.len()),
        observed,
    )
}

/// The last letters of a text.
fn tail(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    letters[letters.len().saturating_sub(20)..].iter().collect()
}

/// Bytes that are not UTF-8 cost neither their line nor its neighbours.
async fn any_bytes_pass(pod: &ScenarioPod) -> Verdict {
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    main.arrange(agent::append_bytes(
        LOG,
        b"bytes 1\nbytes 2 caf\xe9 \xff\xfe\x01 au lait\nbytes 3\n",
    ))
    .await?;
    mark(&main, "the end of the bytes").await?;
    let mut whole = false;
    delivery
        .brings(EVERY_LINE, "a record with “the end of the bytes”", |record| {
            whole |= record.contains("bytes 2 caf") && record.contains("au lait");
            record.contains("the end of the bytes").then_some(())
        })
        .await?;
    delivery.brings_lines("bytes", 3, "the end of the bytes").await?;
    let expect = delivery.expect("a line with other bytes is one record");
    expect.holds(whole, "one record from “bytes 2” to “au lait”", "no such record")
}

/// Ten lines arrive, the file is renamed, ten more go to a new file of the old name.
async fn rotation_by_rename_loses_nothing(pod: &ScenarioPod) -> Verdict {
    rotation(pod, "renamed", agent::rename(LOG, format!("{LOG}.1"))).await
}

/// Ten lines arrive, the file is emptied, ten more are written to it.
async fn truncation_loses_nothing(pod: &ScenarioPod) -> Verdict {
    rotation(pod, "truncated", agent::truncate(LOG)).await
}

async fn rotation(pod: &ScenarioPod, word: &str, rotate: Statement) -> Verdict {
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    main.arrange(agent::append(LOG, 10).of(word)).await?;
    delivery.brings_text(EVERY_LINE, &format!("{word} 10")).await?;
    main.arrange(rotate).await?;
    main.arrange(agent::append(LOG, 10).of(word)).await?;
    let marker = format!("the end of what was {word}");
    mark(&main, &marker).await?;
    delivery.brings_lines(word, 20, &marker).await
}

/// Main's last line is half written when the file is renamed, and completed through the handle that main has kept.
async fn half_lines_are_not_glued(pod: &ScenarioPod) -> Verdict {
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    let (old, marker) = ("/logs/app.log.half", "the end of the halves");
    main.arrange(agent::append_bytes(LOG, "half 1 first-")).await?;
    main.arrange(agent::rename(LOG, old)).await?;
    main.arrange(agent::append_text(LOG, "half 2 of the new file")).await?;
    delivery.brings_text(EVERY_LINE, "half 2").await?;
    main.arrange(agent::append_bytes(old, "part\n")).await?;
    mark(&main, marker).await?;
    let (mut whole, mut glued) = (false, None);
    let mut look = |record: &str| {
        whole |= record.contains("half 1 first-part");
        if record.contains("half 1") && record.contains("half 2") {
            glued = Some(record.to_owned());
        }
    };
    delivery
        .brings(EVERY_LINE, &format!("a record with “{marker}”"), |record| {
            look(record);
            record.contains(marker).then_some(())
        })
        .await?;
    let expect = delivery.expect("no half line is glued to another");
    expect.holds(glued.is_none(), "two records", glued.unwrap_or_default())?;
    delivery
        .brings_text("a half line is completed", "half 1 first-part")
        .await?;
    Ok(())
}

/// A file is there at once with all its lines, and nothing is written to it any more.
async fn files_that_appear_whole_are_read(pod: &ScenarioPod) -> Verdict {
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    main.arrange(agent::append("/logs/.whole", 5).of("whole")).await?;
    main.arrange(agent::append_text("/logs/.whole", "the end of the whole file"))
        .await?;
    main.arrange(agent::rename("/logs/.whole", "/logs/whole.log")).await?;
    delivery.brings_lines("whole", 5, "the end of the whole file").await
}

/// Three files are written at the same time. Each is complete and in order; lines of different files may come in any order.
async fn several_files_are_followed(pod: &ScenarioPod) -> Verdict {
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    let words = ["one", "two", "three"];
    let write = words.map(|word| {
        agent::append(format!("/logs/{word}.log"), 100)
            .of(word)
            .every(RATE)
            .quietly()
    });
    try_join_all(write.map(|write| main.arrange(write))).await?;
    for word in words {
        let marker = format!("the end of file {word}");
        main.arrange(agent::append_text(format!("/logs/{word}.log"), &marker))
            .await?;
        delivery.brings_lines(word, 100, &marker).await?;
    }
    Ok(())
}

/// Main writes in its handler of SIGTERM; a native sidecar goes on until main has ended.
async fn last_lines_survive_shutdown(pod: &ScenarioPod) -> Verdict {
    let delivery = Delivery::of(pod)?;
    pod.deleted().await?;
    delivery.brings_lines("last", 5, "the end of the last lines").await
}

/// The very last thing that main writes has no end of line.
async fn an_unfinished_line_is_delivered(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    let delivery = Delivery::from_the_start(pod)?;
    delivery
        .brings_text("a line without an end arrives", "no end to this")
        .await?;
    Ok(())
}

/// Main goes on writing while the sidecar is restarted; lines may arrive twice.
async fn resumes_without_loss(pod: &ScenarioPod) -> Verdict {
    const LINES: u64 = 2_000;
    const PACE: Duration = Duration::from_millis(5);
    let (main, sidecar, delivery) = (pod.main(), pod.sidecar(), Delivery::of(pod)?);
    let (signal, before) = (pod.profile()?.stop_signal(), sidecar.run()?);
    let write = async {
        let lines = agent::append(LOG, LINES).of("resumed").every(PACE).quietly();
        main.arrange(lines).await
    };
    let restart = async {
        delivery.brings_text(NO_LOSS, "resumed 100").await?;
        sidecar.end_first_process(signal).await?;
        Ok::<_, Finding>(sidecar.given().restarts(&before).await?)
    };
    let (written, restarted) = tokio::join!(write, restart);
    written?;
    restarted?;
    delivery.loses_none(pod, "resumed", LINES).await
}

/// Where a sidecar that delivers over the network does, and whether by requests; nothing if it does not.
fn sink_of(pod: &ScenarioPod) -> anyhow::Result<Option<(&'static str, bool)>> {
    Ok(match pod.profile()?.logging().delivers {
        Delivers::Stdout | Delivers::File(_) => None,
        Delivers::Http => Some((HTTP_SINK, true)),
        Delivers::Tcp | Delivers::Syslog => Some((SINK, false)),
    })
}

/// Nobody listens for eight seconds, in which main writes.
async fn waits_for_a_sink_that_is_away(pod: &ScenarioPod) -> Verdict {
    const AWAY: Duration = Duration::from_secs(8);
    let (main, delivery) = (pod.main(), Delivery::of(pod)?);
    let Some((address, http)) = sink_of(pod)? else {
        return Err(Finding::NotApplicable(
            "the image delivers to nobody who could be away".to_owned(),
        ));
    };
    main.arrange(agent::append(LOG, 10).of("away")).await?;
    delivery.brings_text(NO_LOSS, "away 10").await?;
    delivery.to.arrange(agent::sink_close(address)).await?;
    main.arrange(agent::append(LOG, 2_000).of("away").quietly()).await?;
    main.arrange(agent::pause(AWAY)).await?;
    delivery.to.arrange(agent::sink(address, http)).await?;
    delivery.loses_none(pod, "away", 2_010).await
}

/// It is killed while it has lines that nobody takes, if it delivers over the network. Nobody can handle SIGKILL.
async fn a_kill_loses_nothing(pod: &ScenarioPod) -> Verdict {
    let (main, sidecar, delivery) = (pod.main(), pod.sidecar(), Delivery::of(pod)?);
    let (sink, waits) = (sink_of(pod)?, pod.profile()?.claims(Claim::Retry));
    if sink.is_some() && !waits {
        let reason = "the sink is away meanwhile, and the profile does not claim “retry”";
        return Err(Finding::NotApplicable(reason.to_owned()));
    }
    main.arrange(agent::append(LOG, 10).of("killed")).await?;
    delivery.brings_text(NO_LOSS, "killed 10").await?;
    if let Some((address, _)) = sink {
        delivery.to.arrange(agent::sink_close(address)).await?;
    }
    main.arrange(agent::append(LOG, 1_000).of("killed").quietly()).await?;
    kill(&sidecar).await?;
    main.arrange(agent::append(LOG, 10).of("killed")).await?;
    if let Some((address, http)) = sink {
        delivery.to.arrange(agent::sink(address, http)).await?;
    }
    delivery.loses_none(pod, "killed", 1_020).await
}

/// The sidecar is killed; while it is away, its file is removed, and another one of the same name gets the inode.
async fn a_new_file_with_an_old_inode_is_read(pod: &ScenarioPod) -> Verdict {
    /// For it to write down how far it is.
    const REST: Duration = Duration::from_secs(5);
    let (main, sidecar, delivery) = (pod.main(), pod.sidecar(), Delivery::of(pod)?);
    let (file, new) = ("/logs/recycled.log", "/logs/.recycled");
    // Others on the node make files too, and may get the inode.
    let mut tries = (1..=3).map(|number| 20 * number);
    loop {
        let Some(lines) = tries.next() else {
            let reason = "the file system gives no inode again, or the sidecar keeps a removed file open";
            return Err(Finding::NotApplicable(reason.to_owned()));
        };
        main.arrange(agent::append(file, 20).of("old")).await?;
        delivery.brings_text(NO_LOSS, &format!("old {lines}")).await?;
        main.arrange(agent::pause(REST)).await?;
        kill(&sidecar).await?;
        let recycled = main.arrange(agent::recycle(file, new)).await?;
        if recycled.fields.get("same") == Some(&true.into()) {
            break;
        }
    }
    main.arrange(agent::append(new, 100).of("new").quietly()).await?;
    main.arrange(agent::rename(new, file)).await?;
    delivery.loses_none(pod, "new", 100).await
}

/// Ends the sidecar's first process at once; its Pod's processes share a namespace, in which that is no PID 1.
async fn kill(sidecar: &Container) -> anyhow::Result<()> {
    let run = sidecar.run()?;
    sidecar.end_first_process("KILL").await?;
    sidecar.run_ended(&run).await
}
