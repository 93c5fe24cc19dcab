//! A sidecar ships what main writes to a file.

use anyhow::Context;
use sidecheck::agent;
use sidecheck::pod::Line;
use sidecheck::timeline::Event;
use sidecheck::{Container, ScenarioPod, Verdict};

use crate::properties::{self, WORKS, content, sees_at_once};

crate::checks! {
    "logging"
    shared {
        a_file_that_appears_late_is_shipped,
        every_line_reaches_the_sidecar,
        rotation_by_rename_is_followed,
        truncation_is_followed,
        one_volume_under_two_paths,
        read_only_mount_is_enforced,
    }
    last { shared_files_survive_a_restart, shared_files_end_with_the_pod }
    own {
        nginx_requests_are_shipped [Classic, Native],
        nginx_errors_are_shipped [Classic, Native],
        oom_kill_stays_with_the_sidecar [Classic, Native],
        last_lines_survive_shutdown [Native],
        a_classic_shipper_waits_for_the_last_line [Classic],
        grace_expiry_kills [Classic, Native],
        prestop_runs_before_sigterm [Classic, Native],
    }
}

/// The log, as main mounts it.
const LOG: &str = "/var/log/app/app.log";
/// What every check of numbered lines asserts.
const EVERY_LINE: &str = "every line, once and in order";

/// What main appends, the sidecar ships.
async fn works(pod: &ScenarioPod) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    let known = shipper.line_count()?;
    main.arrange(agent::append_text(LOG, "a line for the shipper")).await?;
    let expect = shipper.expect(WORKS).after(known);
    expect
        .prints_line("main's line", |line| line == "a line for the shipper")
        .await?;
    Ok(())
}

async fn end_main(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.main().end_by(agent::exit(1)).await
}

async fn end_sidecar(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.sidecar().end_program("tail", "KILL").await
}

/// What main appends to the log, the shipper prints; the marker is the line after the last one.
async fn every_line_reaches_the_sidecar(pod: &ScenarioPod) -> Verdict {
    ships(pod, LOG, 200, async |main, _| {
        main.arrange(agent::append(LOG, 200)).await.map(drop)
    })
    .await
}

/// `write` has main write the agent's numbered lines to a file. What the shipper prints after the lines that it has printed before, up to a
/// marker at the end of that file, is these lines.
async fn ships(
    pod: &ScenarioPod,
    file: &str,
    count: usize,
    write: impl AsyncFnOnce(&Container, usize) -> anyhow::Result<()>,
) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    let before = shipper.line_count()?;
    write(&main, before).await?;
    let marker = format!("the end of {file}");
    main.arrange(agent::append_text(file, &marker)).await?;
    shipper
        .expect(EVERY_LINE)
        .after(before)
        .numbered_lines(count, &marker)
        .await
}

/// Both paths show the same file, and what one side adds the other reads at once.
async fn one_volume_under_two_paths(pod: &ScenarioPod) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    let (here, there) = ("/var/log/app/orders.log", "/mnt/logs/orders.log");
    main.arrange(agent::append(here, 100)).await?;
    let (ours, theirs) = (content(&main, here).await?, content(&shipper, there).await?);
    let same = shipper.expect("the same bytes under both paths");
    same.holds(
        ours == theirs && !ours.is_empty(),
        format!("{ours:?}"),
        format!("{theirs:?}"),
    )?;
    sees_at_once((&main, here), (&shipper, there), "from main").await?;
    sees_at_once((&shipper, there), (&main, here), "from the shipper").await
}

/// Ten lines are read, the file is renamed, ten more go to a new file of the old name.
async fn rotation_by_rename_is_followed(pod: &ScenarioPod) -> Verdict {
    let file = "/var/log/app/rotated.log";
    ships(pod, file, 20, async |main, before| {
        main.arrange(agent::append(file, 10)).await?;
        pod.sidecar()
            .given()
            .after(before)
            .prints_line("line 10", |line| line == "line 10")
            .await?;
        main.arrange(agent::rename(file, format!("{file}.1"))).await?;
        main.arrange(agent::append(file, 10)).await.map(drop)
    })
    .await
}

/// Fifty lines are read, the file is emptied, five more are written to it: it stays shorter than it was, by which readers see it.
async fn truncation_is_followed(pod: &ScenarioPod) -> Verdict {
    let file = "/var/log/app/truncated.log";
    ships(pod, file, 55, async |main, before| {
        main.arrange(agent::append(file, 50)).await?;
        pod.sidecar()
            .given()
            .after(before)
            .prints_line("line 50", |line| line == "line 50")
            .await?;
        main.arrange(agent::truncate(file)).await?;
        main.arrange(agent::append(file, 5)).await.map(drop)
    })
    .await
}

/// The shipper complains that there is no file; then main makes it.
async fn a_file_that_appears_late_is_shipped(pod: &ScenarioPod) -> Verdict {
    let file = "/var/log/app/late.log";
    let complains = |line: &str| line.contains("can't open") && line.contains("late.log");
    pod.sidecar().given().prints_line("a complaint", complains).await?;
    ships(pod, file, 20, async |main, _| {
        main.arrange(agent::append(file, 20)).await.map(drop)
    })
    .await
}

/// Five requests, each answered, then one that is not found: by its error, which is logged after them, five lines have arrived.
async fn nginx_requests_are_shipped(pod: &ScenarioPod) -> Verdict {
    ask_six_times(pod, "/?request=", 200).await?;
    ships_in_order(
        pod,
        "every request, once and in order",
        "GET /?request=",
        "GET /?request=end",
    )
    .await
}

/// Five errors, then one more after them: by then five lines have arrived.
async fn nginx_errors_are_shipped(pod: &ScenarioPod) -> Verdict {
    ask_six_times(pod, "/missing-", 404).await?;
    let start = "open() \"/usr/share/nginx/html/missing-";
    ships_in_order(pod, "every error, once and in order", start, &format!("{start}end")).await
}

/// Asks nginx for five numbered paths and then for the end, each of which it answers with that status.
async fn ask_six_times(pod: &ScenarioPod, path: &str, status: u16) -> anyhow::Result<()> {
    let http = pod.http(80).await?;
    for name in ["1", "2", "3", "4", "5", "end"] {
        let answer = http.get(&format!("{path}{name}")).await?;
        anyhow::ensure!(answer.status == status, "nginx answered {answer} instead of {status}");
    }
    Ok(())
}

/// Before a line with `end`, the shipper has printed five lines with `start` and a number, from 1 on and in order, each of them one record.
async fn ships_in_order(pod: &ScenarioPod, label: &'static str, start: &str, end: &str) -> Verdict {
    let (mut seen, shipper) = (Vec::new(), pod.sidecar());
    let collect = |line: &Line| {
        if line.text.contains(end) {
            return Some(());
        }
        let numbers = line.text.split(start).skip(1);
        let numbers: Vec<String> = numbers
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
            .collect();
        if !numbers.is_empty() {
            seen.push(numbers.join("+"));
        }
        None
    };
    shipper
        .expect(label)
        .prints(&format!("a line with “{end}”"), collect)
        .await?;
    let what = format!("lines with “{start}” and the numbers 1 to 5");
    shipper
        .expect(label)
        .holds(seen == ["1", "2", "3", "4", "5"], what, format!("{seen:?}"))
}

/// By its second mount, the shipper can neither add to a log nor make, rename or remove files there nor change their rights; it reads what main wrote.
async fn read_only_mount_is_enforced(pod: &ScenarioPod) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    let (here, there) = ("/var/log/app/kept.log", "/mnt/read-only/kept.log");
    main.arrange(agent::append_text(here, "from main")).await?;
    let found = content(&shipper, there).await?;
    shipper
        .expect("what main writes can be read")
        .holds(found == "from main\n", "“from main”", found)?;
    let changes = [
        agent::append_text(there, "from the shipper"),
        agent::write("/mnt/read-only/new", "from the shipper"),
        agent::rename(there, "/mnt/read-only/renamed"),
        agent::chmod(there, 0o600),
        agent::mkdir("/mnt/read-only/folder"),
        agent::remove(there),
    ];
    properties::is_read_only(&shipper, "nothing can be changed", &changes).await
}

/// Main writes, ends and starts again: both containers still find what it wrote.
async fn shared_files_survive_a_restart(pod: &ScenarioPod) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    let before = main.run()?;
    main.arrange(agent::append_text("/var/log/app/kept", "before the restart"))
        .await?;
    end_main(pod).await?;
    main.given().restarts(&before).await?;
    for (container, path) in [(&main, "/var/log/app/kept"), (&shipper, "/mnt/logs/kept")] {
        let found = content(container, path).await?;
        let expect = container.expect("the file survives");
        expect.holds(
            found == "before the restart\n",
            "what was written before the restart",
            found,
        )?;
    }
    Ok(())
}

/// Main writes; a reader on the node finds the file among the volumes of the kubelet. When the Pod is gone, it finds it nowhere.
async fn shared_files_end_with_the_pod(pod: &ScenarioPod) -> Verdict {
    let reader = pod.other("node-reader").main();
    let name = format!("of-{}", pod.uid()?);
    let find = ["find", "/var/lib/kubelet", "-xdev", "-name", &name];
    pod.main()
        .arrange(agent::append_text(format!("/var/log/app/{name}"), "from the Pod"))
        .await?;
    let there = reader.exec(&find).await?.stdout;
    if there.is_empty() {
        return Err(anyhow::anyhow!("the file is not found on the node while its Pod runs").into());
    }
    pod.deleted().await?;
    let left = reader.exec(&find).await?.stdout;
    for file in left.lines() {
        reader.exec(&["rm", file]).await?;
    }
    reader
        .expect("nothing of the volume is left on the node")
        .holds(left.is_empty(), "no such file", left)
}

/// The sidecar takes more memory than it may; it alone is killed, and the status says why.
async fn oom_kill_stays_with_the_sidecar(pod: &ScenarioPod) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    let before = shipper.run()?;
    properties::restarts_alone(&shipper, &main, async || {
        match shipper.ask(agent::eat(200 << 20)).await {
            Ok(lives) => shipper
                .expect("the kernel ends it")
                .holds(false, "its end", lives.to_string()),
            Err(silent) => Ok(shipper.run_ended(&before).await.map_err(|_| silent)?),
        }
    })
    .await?;
    properties::ended(&shipper, "it was OOM-killed", "OOMKilled", 137)
}

/// What main writes in its SIGTERM handler is in the shipper's log when the Pod is gone.
async fn last_lines_survive_shutdown(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    pod.sidecar().expect(EVERY_LINE).numbered_lines(5, "end").await
}

/// Both get SIGTERM at once; a shipper that waits for main's last line has it when the Pod is gone.
async fn a_classic_shipper_waits_for_the_last_line(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    pod.sidecar().expect(EVERY_LINE).numbered_lines(5, "end").await
}

/// Main ignores SIGTERM and is killed when its time is over, as its last line shows; the sidecar's handler still finishes.
async fn grace_expiry_kills(pod: &ScenarioPod) -> Verdict {
    let (main, shipper) = (pod.main(), pod.sidecar());
    pod.deleted().await?;
    let stop = main.given().records("sigterm", |_| true).await?;
    let last = main.events()?.into_iter().rfind(|event| event.event == "wrote");
    let last = last.map_or(0, |event: Event| event.t).saturating_sub(stop.t) as f64 / 1e9;
    properties::ended(&main, "main is killed", "Error", 137)?;
    // A node that stands still makes the one too short, clocks that differ the other. Some milliseconds pass before the handler records the
    // signal; whole seconds that differ by 8 are more than 7 s apart.
    let by_status = seconds_to_its_end(pod)?;
    let observed =
        format!("{last:.1} s from SIGTERM to its last sign of life, {by_status} s from the Pod's deletion to its end");
    main.expect("main has the whole grace period")
        .holds(last > 7.0 || by_status >= 8, "8 s", observed.clone())?;
    main.expect("the grace period ends")
        .holds(last < 60.0 && by_status < 60, "8 s", observed)?;
    shipper
        .expect("the sidecar finishes its handler")
        .records("exit", |_| true)
        .await?;
    properties::ended(&shipper, "the sidecar ends by itself", "Completed", 0)
}

/// The seconds from the request to delete the Pod to main's end, by the API server and the kubelet, which write whole seconds.
fn seconds_to_its_end(pod: &ScenarioPod) -> anyhow::Result<i64> {
    let state = pod.state().context("no state")?.pod.metadata;
    let deleted = state
        .deletion_timestamp
        .context("no time of the deletion")?
        .0
        .as_second();
    let asked = deleted - state.deletion_grace_period_seconds.unwrap_or_default();
    let ended = pod
        .main()
        .status()
        .and_then(|status| status.state?.terminated?.finished_at);
    Ok(ended.context("no time of main's end")?.0.as_second() - asked)
}

/// Each container's hook was answered before the container got SIGTERM.
async fn prestop_runs_before_sigterm(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    for container in [pod.main(), pod.sidecar()] {
        let stop = container.given().records("sigterm", |_| true).await?;
        let hooks = container.events()?.into_iter().filter(|event| event.event == "request");
        let ended: Vec<u64> = hooks.map(|event| event.t).collect();
        let before = ended.len() == 1 && ended[0] < stop.t;
        let observed = format!("hooks that ended at {ended:?}, SIGTERM at {}", stop.t);
        container
            .expect("the hook ends before SIGTERM")
            .holds(before, "one hook, ended before SIGTERM", observed)?;
    }
    Ok(())
}
