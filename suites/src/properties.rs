//! Properties that every scenario relies on, asserted on whatever Pod a check brings.

use std::time::Duration;

use sidecheck::timeline::Event;
use sidecheck::{Container, Finding, ScenarioPod, Verdict, eventually, expect, not_met, patience};

/// All containers of `pod` see one network namespace, one set of addresses with the Pod's IP in it and one host name; `other` differs.
pub async fn share_one_ip(pod: &ScenarioPod, other: &ScenarioPod) -> Verdict {
    let (main, sidecar) = (pod.main(), pod.sidecar());
    // A program that leaves the Pod's network needs a moment for that.
    has_begun(&sidecar).await?;
    let (ours, theirs) = (main.identity().await?, sidecar.identity().await?);
    let ip = pod.ip()?;
    let expected = format!("host name {}, interfaces {:?}", ours.hostname, ours.interfaces);
    let same = ours.interfaces == theirs.interfaces
        && ours.hostname == theirs.hostname
        && ours.namespaces.get("net") == theirs.namespaces.get("net");
    let observed = format!("host name {}, interfaces {:?}", theirs.hostname, theirs.interfaces);
    expect(
        &sidecar,
        same,
        format!("what {} sees: {expected}", main.name()),
        observed,
    )?;
    let has_ip = ours.addresses().contains(&ip.as_str());
    expect(
        &main,
        has_ip,
        format!("the Pod's IP {ip}"),
        format!("addresses {:?}", ours.addresses()),
    )?;
    let strange = other.main().identity().await?;
    let apart =
        strange.namespaces.get("net") != ours.namespaces.get("net") && !strange.addresses().contains(&ip.as_str());
    expect(
        &other.main(),
        apart,
        format!("an address other than {ip}"),
        format!("{:?}", strange.addresses()),
    )
}

/// Waits until the program in `container` has printed something: a container runs before its program does.
///
/// What ends nginx does not count. One that looks for localhost while the kubelet writes the Pod's /etc/hosts for the next container, which
/// it does in place, may find none; the next run of it does.
pub async fn has_begun(container: &Container) -> Verdict {
    container
        .prints_line("a line that it has begun", |line| !line.contains("[emerg]"))
        .await?;
    Ok(())
}

/// `victim` ends and starts again, while `bystander` stays the container that it was: same id, start time and restart count.
pub async fn restarts_alone<E: Into<Finding>>(
    victim: &Container,
    bystander: &Container,
    cause: impl AsyncFnOnce() -> Result<(), E>,
) -> Verdict {
    let (before, untouched) = (victim.run()?, bystander.run()?);
    let inside = bystander.identity().await?;
    cause().await.map_err(Into::into)?;
    victim.restarted_since(&before).await?;
    // The status lags behind the container; its mount namespace does not, and a container that started anew has another one.
    let now = bystander.identity().await;
    let expected = format!("{} to go on as it was: {untouched:?}", bystander.name());
    match bystander.run() {
        Ok(after) => {
            expect(
                bystander,
                after == untouched,
                &expected,
                format!("it was restarted: {after:?}"),
            )?;
            let now = now?;
            expect(
                bystander,
                now.namespaces.get("mnt") == inside.namespaces.get("mnt"),
                expected,
                format!(
                    "it was restarted: its mount namespace is another one: {:?}",
                    now.namespaces
                ),
            )
        }
        Err(down) => Err(not_met(bystander, expected, format!("it was restarted: {down}"))),
    }
}

/// What `container` finds in the file `path`; why it finds nothing where it cannot read it.
pub async fn content(container: &Container, path: &str) -> anyhow::Result<String> {
    let read = container.ask(&format!("read {path}")).await?;
    Ok(match read.event.as_str() {
        "read" => read.text("content").to_owned(),
        _ => format!("{}: {}", read.text("error"), read.text("message")),
    })
}

/// Two containers find the same bytes, and at least one, each under its own path.
pub async fn same_bytes((one, here): (&Container, &str), (other, there): (&Container, &str)) -> Verdict {
    let (ours, theirs) = (content(one, here).await?, content(other, there).await?);
    let same = ours == theirs && !ours.is_empty();
    let expected = format!("in {there} what {} finds in {here}: {ours:?}", one.name());
    expect(other, same, expected, format!("{theirs:?}"))
}

/// The line that `writer` adds to its file is the last one that `reader` finds in its own as soon as it was written.
pub async fn sees_at_once(
    (writer, here): (&Container, &str),
    (reader, there): (&Container, &str),
    line: &str,
) -> Verdict {
    let written = writer.ask(&format!("append-text {here} {line}")).await?;
    let expected = format!("“{line}” to be written to {here}");
    expect(writer, written.event == "wrote-text", expected, written.to_string())?;
    let found = content(reader, there).await?;
    let last = found.lines().last().unwrap_or_default();
    let expected = format!("“{line}” at the end of {there}");
    expect(reader, last == line, expected, format!("“{last}”"))
}

/// The agent in `container` cannot carry out a statement that changes a file, because the file system is read-only.
pub async fn is_read_only(container: &Container, change: &str) -> Verdict {
    let event = container.ask(change).await?;
    let refused = event.text("error") == "EROFS";
    expect(container, refused, format!("EROFS for “{change}”"), event.to_string())
}

/// By the time `shipper` has printed a line with `marker`, it has printed COUNT lines with `start` and a number, from 1 on and in order.
pub async fn ships_in_order(shipper: &Container, start: &str, count: usize, marker: &str) -> Verdict {
    let numbers = shipper
        .prints(&format!("a line with “{marker}”"), |printed| {
            printed.texts().any(|line| line.contains(marker)).then(|| {
                let rests = printed.texts().filter_map(|line| line.split_once(start));
                rests.map(|(_, rest)| leading_number(rest)).collect::<Vec<_>>()
            })
        })
        .await?;
    let expected: Vec<_> = (1..=count).collect();
    let what = format!("lines with “{start}” and the numbers {expected:?} before “{marker}”");
    expect(shipper, numbers == expected, what, format!("{numbers:?}"))
}

fn leading_number(text: &str) -> usize {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or_default()
}

/// The URLs of `port` on localhost as `container` has it: by name, by IPv4, and by IPv6 where the Pod has that.
async fn loopback_urls(container: &Container, port: u16) -> anyhow::Result<Vec<String>> {
    let mut hosts = vec!["localhost", "127.0.0.1"];
    if container.identity().await?.has_ipv6_loopback() {
        hosts.push("[::1]");
    }
    Ok(hosts.iter().map(|host| format!("http://{host}:{port}/")).collect())
}

/// Like [`loopback_urls`], of an agent that listens on 127.0.0.1 already; on IPv6 it is told to.
pub async fn loopback_addresses(server: &Container, port: u16, body: &str) -> anyhow::Result<Vec<String>> {
    let urls = loopback_urls(server, port).await?;
    if urls.iter().any(|url| url.contains("[::1]")) {
        server.tell(&format!("serve [::1]:{port} body {body}")).await?;
    }
    Ok(urls)
}

/// A GET of `url` by the agent in `from` is answered with 200 and nothing but `page`.
pub async fn gets(from: &Container, url: &str, page: &str) -> Verdict {
    answers(from, url, page, |body| body.trim_end() == page).await
}

/// A GET of `url` by the agent in `from` is answered with 200 and a page that has this line.
pub async fn gets_line(from: &Container, url: &str, line: &str) -> Verdict {
    answers(from, url, line, |body| has_line(body, line)).await
}

/// The agent's statement for one GET request.
pub fn call(url: &str, within: Duration) -> String {
    format!("call {url} within {}s", within.as_secs())
}

async fn answers(from: &Container, url: &str, text: &str, right: impl Fn(&str) -> bool) -> Verdict {
    let answer = from.ask(&call(url, patience::CALL)).await?;
    let good = is_ok(&answer) && right(answer.text("body"));
    expect(from, good, format!("“{text}” from {url}"), answer.to_string())
}

fn is_ok(answer: &Event) -> bool {
    answer.number("status") == Some(200)
}

fn has_line(body: &str, line: &str) -> bool {
    body.lines().any(|candidate| candidate == line)
}

/// The agent in `from` gets a page with this line through the Service of that name, and then at each of three further requests.
///
/// The Service's rules reach the node a moment after its Pod is ready. Until then its IP refuses connections, or they
/// leave the cluster by the node's default route, where anybody may answer (seen with kube-proxy's iptables rules).
pub async fn service_leads_to(from: &Container, service: &str, line: &str) -> Verdict {
    let url = format!("http://{service}/");
    let call = call(&url, patience::ATTEMPT);
    eventually(
        from,
        &format!("“{line}” from {url}"),
        patience::REACTION,
        async || {
            let answer = from.ask(&call).await?;
            let found = is_ok(&answer) && has_line(answer.text("body"), line);
            Ok(found.then_some(()).ok_or(answer.to_string()))
        },
    )
    .await?;
    for _ in 0..3 {
        gets_line(from, &url, line).await?;
    }
    Ok(())
}

/// `from` gets `page` at `port` of localhost, by name and by every version of IP that the loopback interface has.
pub async fn gets_on_localhost(from: &Container, port: u16, page: &str) -> Verdict {
    for url in loopback_urls(from, port).await? {
        gets(from, &url, page).await?;
    }
    Ok(())
}

/// Nobody listens where the agent in `from` sends a GET request.
pub async fn is_refused(from: &Container, url: &str) -> Verdict {
    let answer = from.ask(&call(url, patience::CALL)).await?;
    let refused = answer.text("error") == "ECONNREFUSED";
    expect(from, refused, format!("ECONNREFUSED from {url}"), answer.to_string())
}

/// The agent in `container` takes so much memory that it does not live to tell.
pub async fn eats(container: &Container, bytes: &str) -> Verdict {
    let before = container.run()?;
    match container.tell(&format!("eat {bytes}")).await {
        Ok(_) => Err(not_met(
            container,
            "the kernel to end it",
            format!("it ate {bytes} and lived"),
        )),
        Err(silent) => Ok(container.run_ended(&before).await.map_err(|_| silent)?),
    }
}

/// The last run of `container` ended for this reason and with this exit code.
pub fn ended(container: &Container, reason: &str, code: i32) -> Verdict {
    let status = container.status().unwrap_or_default();
    let ended = [status.state, status.last_state]
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated);
    let observed = ended.map_or("no end".to_owned(), |ended| {
        format!("{} with code {}", ended.reason.unwrap_or_default(), ended.exit_code)
    });
    let expected = format!("{reason} with code {code}");
    expect(container, observed == expected, expected, observed)
}

/// The first event of that name at one container came before the first event of that name at the other.
pub fn comes_before((one, first): (&Container, &str), (other, second): (&Container, &str)) -> Verdict {
    let (earlier, later) = (recorded(one, first)?.t, recorded(other, second)?.t);
    let expected = format!("{first} of {} before {second} of {}", one.name(), other.name());
    let observed = format!("{second} of {} came before {first} of {}", other.name(), one.name());
    expect(other, earlier < later, expected, observed)
}

/// What `container` recorded under this name, to be asked when its log is complete.
pub fn recorded(container: &Container, name: &str) -> Result<Event, Finding> {
    let events = container.events();
    events.iter().find(|event| event.event == name).cloned().ok_or_else(|| {
        let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
        let observed = format!("no event “{name}” among {names:?}");
        not_met(container, format!("the event “{name}” by the end of the Pod"), observed)
    })
}

/// Deletes the Pod and waits until it is gone, once main and sidecar have told that they have begun: a container without a probe is
/// ready before its program knows what to do on a signal.
pub async fn deleted(pod: &ScenarioPod) -> Verdict {
    for container in [pod.main(), pod.sidecar()] {
        let begun = |line: &str| {
            let event = Event::parse(container.name(), line).map(|event| event.event);
            line.contains("start worker process ") || matches!(event.as_deref(), Some("started" | "begun" | "watching"))
        };
        container.prints_line("a line that it has begun", begun).await?;
    }
    pod.deleted().await?;
    Ok(())
}

/// What nginx logs of the stop signal that its image declares.
pub const SIGQUIT: &str = "signal 3 (SIGQUIT) received";

/// nginx in `container` has logged its stop signal.
pub fn nginx_was_told(container: &Container) -> Verdict {
    let told = container.printed().texts().any(|line| line.contains(SIGQUIT));
    expect(container, told, format!("nginx's line “{SIGQUIT}”"), "no such line")
}

/// When the Pod is deleted, the sidecar records its `sigterm` after main has recorded that it `ended`.
pub async fn sidecar_is_ended_last(pod: &ScenarioPod) -> Verdict {
    deleted(pod).await?;
    comes_before((&pod.main(), "ended"), (&pod.sidecar(), "sigterm"))
}
