//! Properties that every scenario relies on, asserted on whatever Pod a check brings.

use sidecheck::{Container, ScenarioPod, Verdict, expect, not_met};

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
