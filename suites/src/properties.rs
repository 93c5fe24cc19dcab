//! Properties that every scenario relies on, asserted on whatever Pod a check brings.

use sidecheck::timeline::Event;
use sidecheck::{Container, Finding, ScenarioPod, Verdict, eventually, expect, not_met, patience};

/// All containers of `pod` see one network namespace, one set of addresses with the Pod's IP in it and one host name; `other` differs.
pub async fn share_one_ip(pod: &ScenarioPod, other: &ScenarioPod) -> Verdict {
    let (main, sidecar) = (pod.main(), pod.sidecar());
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

/// `victim` ends and starts again, while `bystander` stays the container that it was: same id, start time and restart count.
pub async fn restarts_alone(
    victim: &Container,
    bystander: &Container,
    cause: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> Verdict {
    let (before, untouched) = (victim.run()?, bystander.run()?);
    cause().await?;
    victim.restarted_since(&before).await?;
    let expected = format!("{} to go on as it was: {untouched:?}", bystander.name());
    match bystander.run() {
        Ok(after) => expect(
            bystander,
            after == untouched,
            expected,
            format!("it was restarted: {after:?}"),
        ),
        Err(down) => Err(not_met(bystander, expected, format!("it was restarted: {down}"))),
    }
}

/// A GET of `url` in `from` brings `page`.
pub async fn gets(from: &Container, url: &str, page: &str) -> Verdict {
    let answer = from.ask(&format!("call {url}")).await?;
    let same = answer.number("status") == Some(200) && answer.text("body").trim_end() == page;
    expect(from, same, format!("“{page}” from {url}"), answer.to_string())
}

/// Like [`gets`], through the Service of that name, which may take a moment to lead anywhere.
pub async fn gets_from_service(from: &Container, service: &str, page: &str) -> Verdict {
    let connect = format!("connect {service}:80");
    eventually(from, "a connection to the Service", patience::REACTION, async || {
        let event = from.ask(&connect).await?;
        Ok((event.event == "connected").then_some(()).ok_or(event.to_string()))
    })
    .await?;
    gets(from, &format!("http://{service}/"), page).await
}

/// `from` gets `page` at `port` of localhost, by name and by every version of IP that the loopback interface has.
pub async fn gets_on_localhost(from: &Container, port: u16, page: &str) -> Verdict {
    gets(from, &format!("http://localhost:{port}/"), page).await?;
    gets(from, &format!("http://127.0.0.1:{port}/"), page).await?;
    if from.identity().await?.has_ipv6_loopback() {
        gets(from, &format!("http://[::1]:{port}/"), page).await?;
    }
    Ok(())
}

/// A connection from `from` to `address` is refused.
pub async fn is_refused(from: &Container, address: &str) -> Verdict {
    let event = from.ask(&format!("connect {address}")).await?;
    let refused = event.text("error") == "ECONNREFUSED";
    expect(from, refused, format!("that {address} refuses it"), event.to_string())
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

/// When `pod` is deleted, the sidecar records its `sigterm` after main recorded that it `ended`.
pub async fn sidecar_is_ended_last(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    let (main, sidecar) = (pod.main(), pod.sidecar());
    let (end, signal) = (recorded(&main, "ended")?, recorded(&sidecar, "sigterm")?);
    let millis = end.t.saturating_sub(signal.t) / 1_000_000;
    expect(
        &sidecar,
        signal.t > end.t,
        format!("its stop signal after the end of {}", main.name()),
        format!("its stop signal {millis} ms before {} ended", main.name()),
    )
}
