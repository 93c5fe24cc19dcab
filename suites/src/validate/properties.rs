//! What every good sidecar does, whatever its role.

use anyhow::Context;
use sidecheck::agent;
use sidecheck::image::signal_number;
use sidecheck::pod::Process;
use sidecheck::pod::state::is_ready;
use sidecheck::{Container, ScenarioPod, Verdict, patience};

use crate::properties::restarts_alone as restarts;

/// How often the sidecar does its work before what that leaves behind is counted; most checks of its Pod came before.
pub const ROUNDS: usize = 5;

/// The sidecar is ready, as has just been waited for, and stays so for a while: one without a probe counts as ready as soon as it runs.
pub async fn becomes_ready(pod: &ScenarioPod) -> Verdict {
    let sidecar = pod.sidecar();
    let before = sidecar.run();
    // Time itself is the subject.
    tokio::time::sleep(patience::STAYS).await;
    let same = matches!((before, sidecar.run()), (Ok(before), Ok(after)) if before == after);
    let ready = pod.state().is_some_and(|state| is_ready(&state.pod));
    let observed = format!("{}; {}", pod.describe(), sidecar.last_words());
    sidecar.will_end();
    sidecar
        .expect("it becomes ready")
        .holds(same && ready, "a sidecar that is ready and stays so", observed)
}

/// Main ends and starts again while the sidecar stays what it was.
pub async fn survives_mains_restart(pod: &ScenarioPod) -> Verdict {
    let main = pod.main();
    restarts(&main, &pod.sidecar(), async || Ok(main.end_by(agent::exit(1)).await?)).await
}

/// After its work, no process has ended that its parent does not wait for.
pub async fn leaves_no_zombies(pod: &ScenarioPod) -> Verdict {
    let sidecar = pod.sidecar();
    let expect = sidecar.expect("no ended process stays");
    expect
        .eventually("no ended processes", async || {
            let processes = sidecar.identity().await?.processes.into_iter();
            let ended: Vec<Process> = processes.filter(|process| process.state == 'Z').collect();
            Ok(match ended.first() {
                None => Ok(()),
                Some(one) => {
                    let (count, name) = (ended.len(), &one.name);
                    Err(format!(
                        "{count} ended processes that nobody has waited for, such as “{name}”"
                    ))
                }
            })
        })
        .await
}

/// The sidecar's first process gets its stop signal, ends and starts again while main stays what it was.
pub async fn restarts_alone(pod: &ScenarioPod) -> Verdict {
    let (sidecar, signal) = (pod.sidecar(), pod.profile()?.stop_signal());
    obeys(&sidecar, signal).await?;
    restarts(&sidecar, &pod.main(), async || {
        Ok(sidecar.end_first_process(signal).await?)
    })
    .await
}

/// The kernel discards signals that a first process has no handler for.
async fn obeys(sidecar: &Container, signal: &str) -> Verdict {
    let what = format!("a first process that handles {signal}");
    let expect = sidecar
        .expect("its first process handles its stop signal")
        .within(patience::HANDLER);
    expect
        .eventually(&what, async || {
            let handles = sidecar.first_process_obeys(signal).await?;
            Ok(if handles {
                Ok(())
            } else {
                Err("it has no handler: the kernel discards the signal".to_owned())
            })
        })
        .await?;
    Ok(())
}

/// The Pod is deleted; the sidecar has ended by itself, as its signal or its own exit says.
pub async fn stops_in_time(pod: &ScenarioPod) -> Verdict {
    pod.deleted().await?;
    ended_by_itself(pod)
}

/// Main completes, and with it the Pod, because the sidecar ends by itself.
pub async fn lets_a_job_complete(pod: &ScenarioPod) -> Verdict {
    let main = pod.main();
    main.end_by(agent::exit(0)).await?;
    let phase = |pod: &ScenarioPod| {
        pod.state()
            .and_then(|state| state.pod.status?.phase)
            .unwrap_or_default()
    };
    let expect = main.expect("the Pod succeeds");
    expect
        .eventually("the Pod's phase Succeeded", async || {
            let phase = phase(pod);
            Ok(if phase == "Succeeded" { Ok(()) } else { Err(phase) })
        })
        .await?;
    ended_by_itself(pod)
}

/// The sidecar's last end was its own: with code 0, or by the signal that it got, but not killed when its time was over.
fn ended_by_itself(pod: &ScenarioPod) -> Verdict {
    let (sidecar, profile) = (pod.sidecar(), pod.profile()?);
    let by_signal = 128 + signal_number(profile.stop_signal())?.cast_signed();
    let status = sidecar.status().context("the sidecar's end was not seen")?;
    let ended = [status.state, status.last_state]
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated);
    let ended = ended.context("the sidecar's end was not seen")?;
    let code = ended.exit_code;
    let expected = format!("an end within {:?} with code 0 or {by_signal}", profile.grace());
    let observed = match (code, ended.reason.as_deref()) {
        (137, Some("Error") | None) => "it was killed when its time was over (code 137)".to_owned(),
        (_, reason) => format!("it ended with code {code} ({})", reason.unwrap_or("no reason")),
    };
    sidecar
        .expect("it ends by itself")
        .holds(code != 137, expected.clone(), observed.clone())?;
    sidecar
        .expect("its exit code says that all is well")
        .holds(code == 0 || code == by_signal, expected, observed)
}
