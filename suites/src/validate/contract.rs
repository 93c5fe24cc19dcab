//! What every image does alone, before it is a sidecar of anything: it starts, says what is wrong, ends when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;
use sidecheck::image::{Alone, Disposition, signal_number};
use sidecheck::scenario::Lone;
use sidecheck::{Finding, Verdict, patience};
use tokio::time::sleep;

crate::contract! {
    "validate/contract"
    starts_as_declared,
    stops_on_its_signal,
    runs_as_its_user,
    runs_as_any_user,
    runs_with_a_read_only_root,
    needs_no_more_capabilities,
    opens_its_ports_and_no_others,
    refuses_a_bad_configuration,
    logs_to_its_output,
    leaves_no_zombies,
    is_modest_when_idle,
    has_no_shell,
}

/// It goes on, and its declared ports are open.
async fn goes_on(lone: &Lone, label: &'static str, alone: &Alone) -> Verdict {
    let ended = begins(lone, alone).await?;
    lone.heard(alone).await?;
    let ports = lone.profile().ports();
    let expected = format!("a container that goes on and listens on {ports:?}");
    lone.expect(label)
        .holds(ended.is_none(), expected, ended.unwrap_or_default())
}

/// Starts a container as it is declared. If it does not go on, another check says so.
async fn started(lone: &Lone) -> Result<Alone, Finding> {
    let alone = lone.start().await?;
    match begins(lone, &alone).await? {
        None => Ok(alone),
        Some(_) => Err(Finding::Skipped(
            "the image does not start as declared: see starts-as-declared".to_owned(),
        )),
    }
}

/// Waits until its declared ports are open and it has gone on for a while; what it does instead, if it does not.
async fn begins(lone: &Lone, alone: &Alone) -> anyhow::Result<Option<String>> {
    let ports: BTreeSet<u16> = lone.profile().ports().into_iter().collect();
    let begun = Instant::now();
    loop {
        if let Some(exit) = alone.exit().await? {
            let words = lone.heard(alone).await?;
            return Ok(Some(format!(
                "it ended with code {}; last words: {}",
                exit.code,
                last(&words)
            )));
        }
        let open = alone.listening().await?;
        if ports.is_subset(&open) && begun.elapsed() > patience::STAYS {
            return Ok(None);
        }
        if begun.elapsed() > lone.profile().startup() {
            return Ok(Some(format!(
                "after {:?} it listens on {open:?}",
                lone.profile().startup()
            )));
        }
        sleep(patience::LOOK_AGAIN).await;
    }
}

/// Fails if the container has ended by itself: what is not seen of it then says nothing.
async fn still_runs(alone: &Alone) -> anyhow::Result<()> {
    ensure!(alone.running().await?, "it has ended meanwhile");
    Ok(())
}

/// The last lines of an output.
fn last(words: &str) -> String {
    const SHOWN: usize = 5;
    let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "none".to_owned();
    }
    lines[lines.len().saturating_sub(SHOWN)..].join(" | ")
}

/// It is started as declared and goes on.
async fn starts_as_declared(lone: &Lone) -> Verdict {
    goes_on(lone, "it goes on", &lone.start().await?).await
}

/// The stop signal that is declared goes to its first process; it ends by itself, in time, and says that all is well.
async fn stops_on_its_signal(lone: &Lone) -> Verdict {
    let (profile, alone) = (lone.profile(), started(lone).await?);
    let signal = profile.stop_signal();
    let first = alone.first_process().await?.context("it has ended meanwhile")?;
    let stopped = alone.stop(signal, profile.grace()).await?;
    lone.heard(&alone).await?;
    let expected = format!("an end within {:?} of {signal}", profile.grace());
    let why = match first.disposition(signal)? {
        Disposition::Caught | Disposition::Blocked => "",
        Disposition::Ignored => ", which ignores it",
        Disposition::Default => ", which has no handler for it: the kernel discards it",
    };
    let observed = format!("it had to be killed; its first process is `{}`{why}", first.command);
    lone.expect("it ends by itself")
        .holds(!stopped.killed, expected, observed)?;
    let (code, by_signal) = (stopped.exit.code, 128 + i64::from(signal_number(signal)?));
    lone.expect("its exit code says that all is well").holds(
        code == 0 || code == by_signal,
        format!("code 0 or {by_signal}"),
        format!("code {code} after {:.1} s", stopped.after.as_secs_f64()),
    )
}

/// Every process has the declared user.
async fn runs_as_its_user(lone: &Lone) -> Verdict {
    let Some(user) = lone.profile().user else {
        return Err(Finding::NotApplicable(
            "neither the profile nor the image names a user by number".to_owned(),
        ));
    };
    let alone = started(lone).await?;
    let processes = alone.processes().await?;
    still_runs(&alone).await?;
    let other = processes.iter().find(|process| process.uid != user);
    let observed = other.map_or_else(String::new, |process| {
        format!("`{}` of the user {}", process.command, process.uid)
    });
    let expect = lone.expect("its processes are the declared user’s");
    expect.holds(other.is_none(), format!("processes of the user {user} only"), observed)
}

/// As on clusters that give each namespace a range of users.
async fn runs_as_any_user(lone: &Lone) -> Verdict {
    let fields = json!({"securityContext": {"runAsUser": 1_000_710_000, "runAsGroup": 0}});
    let alone = lone.start_with(&fields, &BTreeMap::new()).await?;
    goes_on(lone, "it starts as any user", &alone).await
}

/// Only the declared paths can be written to.
async fn runs_with_a_read_only_root(lone: &Lone) -> Verdict {
    let fields = json!({"securityContext": {"readOnlyRootFilesystem": true}});
    let alone = lone.start_with(&fields, &BTreeMap::new()).await?;
    goes_on(lone, "it starts with a read-only root", &alone).await
}

/// Its container has the declared capabilities only, as in every Pod of the other checks.
async fn needs_no_more_capabilities(lone: &Lone) -> Verdict {
    goes_on(lone, "it goes on", &lone.start().await?).await
}

/// What listens in its network are the declared ports.
async fn opens_its_ports_and_no_others(lone: &Lone) -> Verdict {
    let (declared, alone) = (
        lone.profile().ports().into_iter().collect::<BTreeSet<u16>>(),
        lone.start().await?,
    );
    goes_on(lone, "the declared ports are open", &alone).await?;
    let more: Vec<u16> = alone.listening().await?.difference(&declared).copied().collect();
    still_runs(&alone).await?;
    let expect = lone.expect("no other port is open");
    expect.holds(
        more.is_empty(),
        format!("no port but {declared:?}"),
        format!("it listens on {more:?} too"),
    )
}

/// The files have the wrong texts of the profile.
async fn refuses_a_bad_configuration(lone: &Lone) -> Verdict {
    let profile = lone.profile();
    if profile.bad_files.is_empty() {
        return Err(Finding::NotApplicable(
            "the profile has no badFiles, a configuration that is wrong".to_owned(),
        ));
    }
    // What does not start with the right texts says nothing about wrong ones.
    started(lone).await?;
    let bad = profile
        .bad_files
        .iter()
        .map(|(path, text)| (path.as_str().to_owned(), text.clone()));
    let alone = lone.start_with(&json!({}), &bad.collect()).await?;
    let ended = alone.ended_within(profile.startup()).await?;
    let words = lone.heard(&alone).await?;
    let observed = match &ended {
        Some((exit, _)) => format!("it ended with code {}", exit.code),
        None => format!("it went on for {:?}", profile.startup()),
    };
    let failed = ended.is_some_and(|(exit, _)| exit.code != 0);
    let expect = lone.expect("it ends with an error");
    expect.holds(failed, "an end with a code other than 0", observed)?;
    let says = !words.trim().is_empty();
    lone.expect("it says why")
        .holds(says, "a message on its output", "not a word")
}

/// From its start to its end, it says something where everybody looks.
async fn logs_to_its_output(lone: &Lone) -> Verdict {
    let (profile, alone) = (lone.profile(), started(lone).await?);
    alone.stop(profile.stop_signal(), profile.grace()).await?;
    let words = lone.heard(&alone).await?;
    let expect = lone.expect("there are messages");
    expect.holds(
        !words.trim().is_empty(),
        "a message on standard output or standard error",
        "not a word",
    )
}

/// There are no more ended processes at the end of a while than at its beginning.
async fn leaves_no_zombies(lone: &Lone) -> Verdict {
    let alone = started(lone).await?;
    let zombies = async || {
        let processes = alone.processes().await?;
        anyhow::Ok(processes.iter().filter(|process| process.state == 'Z').count())
    };
    let before = zombies().await?;
    // Time itself is the subject.
    sleep(patience::STAYS).await;
    let after = zombies().await?;
    still_runs(&alone).await?;
    let expected = format!("{before} ended processes that nobody has waited for, as before");
    let expect = lone.expect("no more ended processes after a while");
    expect.holds(
        after <= before,
        expected,
        format!("{after} of them after {:?}", patience::STAYS),
    )
}

/// What it uses in a while without work.
async fn is_modest_when_idle(lone: &Lone) -> Verdict {
    let (profile, alone) = (lone.profile(), started(lone).await?);
    let usage = async || alone.usage().await?.context("it has ended meanwhile");
    let before = usage().await?;
    let begun = Instant::now();
    // Time itself is the subject.
    sleep(patience::IDLE).await;
    let after = usage().await?;
    let share = after.cpu.saturating_sub(before.cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let limit = profile.cpu().amount();
    let expected = format!("at most a tenth of {limit} processors");
    let observed = format!("{:.1} % of a processor", share * 100.0);
    lone.expect("it needs little processor time")
        .holds(share <= limit / 10.0, expected, observed)?;
    let (limit, used) = (profile.memory().amount() as u64, after.memory);
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let expect = lone.expect("it stays below its memory limit");
    expect.holds(used <= limit, format!("at most {}", mebibytes(limit)), mebibytes(used))
}

/// Whoever gets in finds nothing to work with.
async fn has_no_shell(lone: &Lone) -> Verdict {
    const SHELLS: [&str; 6] = [
        "/bin/sh",
        "/usr/bin/sh",
        "/bin/bash",
        "/bin/ash",
        "/bin/busybox",
        "/busybox/sh",
    ];
    let alone = started(lone).await?;
    let mut found = Vec::new();
    for shell in SHELLS {
        if alone.has_file(shell).await? {
            found.push(shell);
        }
    }
    still_runs(&alone).await?;
    let expect = lone.expect("there is no shell");
    expect.holds(found.is_empty(), format!("none of {SHELLS:?}"), format!("{found:?}"))
}
