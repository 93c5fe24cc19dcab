//! Properties that hold in every area, and what several areas assert alike.

use sidecheck::agent;
use sidecheck::pod::Line;
use sidecheck::timeline::Event;
use sidecheck::{Container, ScenarioPod, Verdict, patience};

/// What every area's `works` asserts in the end.
pub const WORKS: &str = "main and sidecar do their work";

/// All containers see one network namespace, one set of addresses with the Pod's IPs in it and one host name; another Pod sees others.
pub async fn containers_share_one_ip(pod: &ScenarioPod) -> Verdict {
    let (main, sidecar, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
    let (ours, theirs, strange) = (
        main.identity().await?,
        sidecar.identity().await?,
        client.identity().await?,
    );
    let network = |identity: &sidecheck::pod::Identity, container: &Container| {
        let number = identity.namespaces.get("net").copied().flatten();
        number.ok_or_else(|| anyhow::anyhow!("{} may not see the number of its network namespace", container.name()))
    };
    let (here, there) = (network(&ours, &main)?, network(&theirs, &sidecar)?);
    let same = format!("what {} sees: {here}, {:?}", main.name(), ours.interfaces);
    let seen = format!("{there}, {:?}", theirs.interfaces);
    sidecar
        .expect("one network")
        .holds(here == there && ours.interfaces == theirs.interfaces, same, seen)?;
    let named = theirs.hostname == ours.hostname;
    sidecar
        .expect("one host name")
        .holds(named, &ours.hostname, &theirs.hostname)?;
    let (ips, addresses) = (pod.ips()?, ours.addresses());
    let all = !ips.is_empty() && ips.iter().all(|ip| addresses.contains(&ip.as_str()));
    main.expect("the Pod's IPs")
        .holds(all, format!("{ips:?}"), format!("{addresses:?}"))?;
    let apart =
        network(&strange, &client)? != here && strange.addresses().iter().all(|address| !addresses.contains(address));
    let seen = format!("{:?}", strange.addresses());
    client
        .expect("another Pod is apart")
        .holds(apart, format!("none of {addresses:?}"), seen)
}

/// What listens in one container answers the other one at localhost, by every version of IP; another Pod gets there by the Pod's IP only.
pub async fn localhost_works_both_ways(pod: &ScenarioPod) -> Verdict {
    let (main, sidecar, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
    let hosts: &[&str] = if main.identity().await?.has_ipv6_loopback() {
        &["localhost", "127.0.0.1", "[::1]"]
    } else {
        &["localhost", "127.0.0.1"]
    };
    let directions = [
        (&main, &sidecar, 18080, "main answers at the sidecar's localhost"),
        (&sidecar, &main, 18081, "the sidecar answers at main's localhost"),
    ];
    for (server, asker, port, label) in directions {
        let address = if hosts.len() == 3 {
            format!("[::]:{port}")
        } else {
            format!("0.0.0.0:{port}")
        };
        server.serve(&address, server.name()).await?;
        for host in hosts {
            gets(asker, label, &format!("http://{host}:{port}/"), server.name()).await?;
        }
        for ip in pod.ips()? {
            gets(
                &client,
                "another Pod gets there by the Pod's IP",
                &at(&ip, port),
                server.name(),
            )
            .await?;
        }
        for host in hosts {
            is_refused(
                &client,
                "it is not reachable on another Pod's localhost",
                &format!("http://{host}:{port}/"),
            )
            .await?;
        }
    }
    Ok(())
}

/// What one container writes to the volume that both mount, the other one reads at once; both see the same bytes.
pub async fn one_volume_is_seen_by_both(pod: &ScenarioPod) -> Verdict {
    let (main, sidecar, file) = (pod.main(), pod.sidecar(), "/gate/of-both");
    sees_at_once((&main, file), (&sidecar, file), "from main").await?;
    sees_at_once((&sidecar, file), (&main, file), "from the sidecar").await?;
    let (one, other) = (content(&main, file).await?, content(&sidecar, file).await?);
    let same = one == other && one == "from main\nfrom the sidecar\n";
    let expect = sidecar.expect("the same bytes under both paths");
    expect.holds(same, format!("{one:?}"), format!("{other:?}"))
}

/// Both containers have recorded their stop signal by the time the Pod is gone.
pub async fn stop_signals_reach_every_container(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    for (container, label) in [
        (pod.main(), "main gets its stop signal"),
        (pod.sidecar(), "the sidecar gets its stop signal"),
    ] {
        let last = last_run(&container)?;
        let stops = |line: &Line| (line.run == last && is_stop_signal(line)).then_some(());
        container.expect(label).prints("its stop signal", stops).await?;
    }
    Ok(())
}

/// The sidecar gets its stop signal when main's last process has gone: the lock that main holds for as long as it lives is free by then.
pub async fn sidecar_ends_after_main(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    let (sidecar, last) = (pod.sidecar(), last_run(&pod.sidecar())?);
    let stops = |line: &Line| {
        let event = line.event.as_deref().filter(|event| event.event == "stop-signal")?;
        (line.run == last).then(|| event.clone())
    };
    let stop = sidecar.given().prints("its stop signal", stops).await?;
    let gone = stop.text("text").ends_with("peer=gone");
    let expect = sidecar.expect("main has ended before the sidecar's stop signal");
    expect.holds(gone, "a stop signal after main's end: peer=gone", stop.to_string())
}

/// The number of a container's last run. An earlier one may have had its stop signal too.
pub fn last_run(container: &Container) -> anyhow::Result<i32> {
    Ok(container.lines()?.last().map_or(0, |line| line.run))
}

/// Whether a line says that the stop signal arrived: a recorded event, or nginx's log of the signal that its image declares.
fn is_stop_signal(line: &Line) -> bool {
    let recorded = |event: &Event| matches!(event.event.as_str(), "stop-signal" | "sigterm");
    line.event.as_deref().is_some_and(recorded) || line.text.contains(NGINX_STOPS)
}

/// What nginx logs when it gets the stop signal that its image declares.
const NGINX_STOPS: &str = "signal 3 (SIGQUIT) received";

/// `victim` ends and starts again, while `bystander` stays the container that it was: same id, same start, same first process.
pub async fn restarts_alone(
    victim: &Container,
    bystander: &Container,
    cause: impl AsyncFnOnce() -> Verdict,
) -> Verdict {
    let (before, untouched) = (victim.run()?, bystander.run()?);
    let inside = bystander.identity().await?.first_process;
    victim.will_end();
    cause().await?;
    victim
        .expect("it is restarted")
        .about_restarts()
        .restarts(&before)
        .await?;
    stays(bystander, &untouched, &inside).await
}

/// `container` is still the run that it was.
async fn stays(container: &Container, run: &sidecheck::pod::Run, first: &sidecheck::pod::FirstProcess) -> Verdict {
    let expect = container.expect("the other container runs on").about_restarts();
    let expected = format!("{} to go on as it was", container.name());
    // The status lags behind the container; what the container itself shows does not.
    let now = match container.identity().await {
        Ok(identity) => identity.first_process,
        // One that has ended cannot answer. One that runs on must.
        Err(silent) => {
            container.run_ended(run).await.map_err(|_| silent)?;
            return expect.holds(false, expected, "it was restarted: it has ended");
        }
    };
    if now != *first {
        return expect.holds(false, expected, "it was restarted: its first process is another one");
    }
    match container.run() {
        Ok(after) => {
            let observed = format!("it was restarted: {} restarts after {}", after.restarts, run.restarts);
            expect.holds(after == *run, expected, observed)
        }
        Err(down) => expect.holds(false, expected, format!("it was restarted: {down}")),
    }
}

/// What `container` reads from the file `path`, or why it cannot.
pub async fn content(container: &Container, path: &str) -> anyhow::Result<String> {
    let read = container.ask(agent::read(path)).await?;
    Ok(match read.event.as_str() {
        "read" => read.text("content").to_owned(),
        _ => format!("{}: {}", read.text("error"), read.text("message")),
    })
}

/// The line that `writer` adds to its file is the last one that `reader` finds in its own as soon as it was written.
pub async fn sees_at_once(
    (writer, here): (&Container, &str),
    (reader, there): (&Container, &str),
    line: &str,
) -> Verdict {
    let written = writer.ask(agent::append_text(here, line)).await?;
    let expect = writer.expect("the volume can be written");
    expect.holds(
        !written.failed(),
        format!("“{line}” to be written to {here}"),
        written.to_string(),
    )?;
    let found = content(reader, there).await?;
    let last = found.lines().last().unwrap_or_default();
    let expect = reader.expect("the other container sees it at once");
    expect.holds(
        last == line,
        format!("“{line}” at the end of {there}"),
        format!("“{last}”"),
    )
}

/// Statements of the agent in `container` that change something below a read-only mount fail, and say why.
pub async fn is_read_only(container: &Container, label: &'static str, changes: &[agent::Statement]) -> Verdict {
    let mut reasons = Vec::new();
    for change in changes {
        let event = container.ask(change.clone()).await?;
        let reason = event.text("error").to_owned();
        let refused = event.failed() && matches!(reason.as_str(), "EROFS" | "EACCES" | "EPERM");
        container
            .expect(label)
            .holds(refused, format!("“{change}” to be refused"), event.to_string())?;
        reasons.push(reason);
    }
    // The rights of files alone would refuse much to who is not root.
    let by_mount = reasons.iter().any(|reason| reason == "EROFS");
    let expect = container.expect(label);
    expect.holds(by_mount, "EROFS, because of the mount", format!("{reasons:?}"))
}

/// A GET of `url` by the agent in `from` is answered with 200 and nothing but `page`.
pub async fn gets(from: &Container, label: &'static str, url: &str, page: &str) -> Verdict {
    let answer = from.ask(agent::call(url).within(patience::CALL)).await?;
    let good = answer.number("status") == Some(200) && answer.text("body").trim_end() == page;
    from.expect(label)
        .holds(good, format!("“{page}” from {url}"), answer.to_string())
}

/// A GET of `url` by the agent in `from` is refused: nothing listens there.
pub async fn is_refused(from: &Container, label: &'static str, url: &str) -> Verdict {
    let answer = from.ask(agent::call(url).within(patience::CALL)).await?;
    let refused = answer.text("error") == "ECONNREFUSED";
    from.expect(label)
        .holds(refused, format!("ECONNREFUSED from {url}"), answer.to_string())
}

/// The agent in `from` gets a page with this line through the Service of that name, and then at each of three further requests.
///
/// The Service's rules reach the node a moment after its Pod is ready. Until then its IP refuses connections, or they
/// leave the cluster by the node's default route, and anything may answer there (seen with kube-proxy's iptables rules).
pub async fn service_leads_to(from: &Container, label: &'static str, service: &str, line: &str) -> Verdict {
    let url = format!("http://{service}/");
    let call = agent::call(&url).within(patience::ATTEMPT);
    let has_line = |answer: &Event| {
        answer.number("status") == Some(200) && answer.text("body").lines().any(|candidate| candidate == line)
    };
    let what = format!("“{line}” from {url}");
    from.expect(label)
        .within(patience::RESTART)
        .eventually(&what, async || {
            let answer = from.ask(call.clone()).await?;
            Ok(if has_line(&answer) {
                Ok(())
            } else {
                Err(answer.to_string())
            })
        })
        .await?;
    for _ in 0..3 {
        let answer = from.ask(call.clone()).await?;
        from.expect(label).holds(has_line(&answer), &what, answer.to_string())?;
    }
    Ok(())
}

/// The URL of a port at an IP address of either version.
pub fn at(ip: &str, port: u16) -> String {
    if ip.contains(':') {
        format!("http://[{ip}]:{port}/")
    } else {
        format!("http://{ip}:{port}/")
    }
}

/// The last run of `container` ended for this reason and with this exit code.
pub fn ended(container: &Container, label: &'static str, reason: &str, code: i32) -> Verdict {
    let status = container.status().unwrap_or_default();
    let states = [status.state, status.last_state].into_iter().flatten();
    let ended = states.into_iter().find_map(|state| state.terminated);
    let observed = ended.map_or("no end".to_owned(), |ended| {
        format!("{} with code {}", ended.reason.unwrap_or_default(), ended.exit_code)
    });
    let expected = format!("{reason} with code {code}");
    container
        .expect(label)
        .holds(observed == expected, expected.clone(), observed)
}
