//! Reloaders: main is told when its configuration has changed, and reads it again.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::json;
use sidecheck::agent;
use sidecheck::pod::{Line, Run, state};
use sidecheck::profile::{Claim, Reloads};
use sidecheck::{Container, Finding, ScenarioPod, Verdict, patience};

use crate::properties::WORKS;
use crate::validate::properties::becomes_ready;

crate::role! {
    "validate/config-reload"
    shared {
        starts_before_main,
        follows_every_update,
        follows_an_update_back,
        a_reload_finds_the_new_text,
        each_update_is_one_reload,
        quick_updates_end_in_the_last,
        a_refused_reload_is_repeated,
        an_invalid_text_does_no_harm,
    }
    last {}
    own {
        a_late_main_is_told [Classic, Native],
        main_begins_with_the_first_text [Native],
        a_change_is_noticed_without_inotify [Classic, Native],
    }
}

/// Main's configuration, as main mounts it, and its name.
const CONFIG: &str = "/config/app.conf";
const NAME: &str = "app.conf";
/// Where main accepts requests to reload.
const RELOAD: &str = "127.0.0.1:18080";
/// Where main looks for files that the sidecar writes.
const OUTPUT: &str = "/output";

/// In how many looks for a new text the kubelet is reminded of it once.
const LOOKS_A_NUDGE: usize = 10;

/// What is asserted of each update, and by others than the check that is about it.
const FOLLOWED: &str = "an update is followed by a reload";

/// How main is told of an update, and what it then reads.
struct Told {
    main: Container,
    sidecar: Container,
    /// What the agent calls the way, and the file if there are several.
    by: String,
    file: Option<String>,
    /// The lines of main that are left out.
    since: usize,
    /// How long it may take.
    within: Duration,
}

impl Told {
    /// From now on.
    fn of(pod: &ScenarioPod) -> anyhow::Result<Self> {
        let main = pod.main();
        let (by, file) = match pod.profile()?.config_reload().reloads {
            Reloads::Http => ("http".to_owned(), None),
            Reloads::Signal { signal, .. } => (signal.as_str().to_lowercase(), None),
            Reloads::File(file) => {
                let name = file.as_str().rsplit('/').next().unwrap_or_default();
                ("watch".to_owned(), Some(format!("{OUTPUT}/{name}")))
            }
        };
        let since = main.line_count()?;
        Ok(Self {
            main,
            sidecar: pod.sidecar(),
            by,
            file,
            since,
            within: patience::REACTION,
        })
    }

    /// What main has read because it was told to, if that is what the line says, and what main thinks of it: `loaded` or `refused`.
    fn read<'a>(&self, line: &'a Line) -> Option<(&'a str, &'a str)> {
        let event = line.event.as_deref()?;
        let is_file = self.file.as_ref().is_none_or(|file| event.text("file") == file);
        (event.text("by") == self.by && is_file).then(|| (event.text("content").trim_end(), event.event.as_str()))
    }

    /// Waits for the first reload of which `look` makes something.
    async fn brings<T>(
        &self,
        label: &'static str,
        what: &str,
        mut look: impl FnMut(&str, &str) -> Option<T>,
    ) -> Result<T, Finding> {
        let last = RefCell::new("main is not told".to_owned());
        let look = |line: &Line| {
            let (text, how) = self.read(line)?;
            *last.borrow_mut() = format!("main is told, and “{text}” is {how} last");
            look(text, how)
        };
        let expect = self.main.expect(label).owed_by(&self.sidecar);
        let expect = expect.after(self.since).within(self.within);
        expect.prints_else(what, look, || last.borrow().clone()).await
    }

    /// Waits until main has read this text and accepted it.
    async fn loads(&self, label: &'static str, text: &str) -> Verdict {
        self.ends_as(label, text, "loaded").await
    }

    /// Waits until main has read this text and not accepted it.
    async fn refuses(&self, label: &'static str, text: &str) -> Verdict {
        self.ends_as(label, text, "refused").await
    }

    async fn ends_as(&self, label: &'static str, text: &str, wanted: &str) -> Verdict {
        let what = format!("that main is told, and “{text}” is {wanted},");
        self.brings(label, &what, |read, how| (read == text && how == wanted).then_some(()))
            .await
    }
}

/// Changes the ConfigMap.
async fn update(pod: &ScenarioPod, text: &str) -> anyhow::Result<()> {
    pod.patch("v1", "ConfigMap", "config", &json!({"data": {NAME: text}}))
        .await
}

/// Waits until the cluster has brought a text to a file.
async fn arrives(pod: &ScenarioPod, at: &Container, file: &str, text: &str) -> anyhow::Result<()> {
    let (what, mut looks) = (format!("{file} with “{text}”"), 0);
    let given = at.given().within(patience::PROJECTION);
    given
        .eventually(&what, async || {
            if looks % LOOKS_A_NUDGE == 0 {
                pod.nudge().await?;
            }
            looks += 1;
            let read = at.ask(agent::read(file)).await?;
            Ok(if read.text("content") == text {
                Ok(())
            } else {
                Err(read.to_string())
            })
        })
        .await
}

/// Changes the ConfigMap and waits until main could read the new text.
async fn publish(pod: &ScenarioPod, text: &str) -> anyhow::Result<()> {
    update(pod, text).await?;
    arrives(pod, &pod.main(), CONFIG, text).await
}

/// An update that is made now is followed by a reload.
async fn follows(pod: &ScenarioPod, label: &'static str, text: &str) -> Verdict {
    let told = Told::of(pod)?;
    publish(pod, text).await?;
    told.loads(label, text).await
}

/// Nothing but a request can be refused.
fn by_request(pod: &ScenarioPod) -> Verdict {
    match pod.profile()?.config_reload().reloads {
        Reloads::Http => Ok(()),
        _ => Err(Finding::NotApplicable(
            "the image does not reload by a request, which could be refused".to_owned(),
        )),
    }
}

/// An update that is made now arrives in main, also if a container has just been restarted: what is there when the sidecar looks first is no
/// update to it, so that there is one more.
async fn works(pod: &ScenarioPod) -> Verdict {
    // The same text may have been there before.
    let text = format!("a text after {} lines", pod.main().line_count()?);
    publish(pod, &format!("{text}, at first")).await?;
    follows(pod, WORKS, &text).await
}

/// Main starts after a native sidecar is ready, so that it is ready shows that it did not wait.
async fn starts_before_main(pod: &ScenarioPod) -> Verdict {
    becomes_ready(pod).await
}

/// The kubelet replaces a link at each update; the old file is gone.
async fn follows_every_update(pod: &ScenarioPod) -> Verdict {
    for text in ["update 1", "update 2", "update 3"] {
        follows(pod, FOLLOWED, text).await?;
    }
    Ok(())
}

/// There, elsewhere, and back.
async fn follows_an_update_back(pod: &ScenarioPod) -> Verdict {
    for text in ["there", "elsewhere", "there"] {
        follows(pod, FOLLOWED, text).await?;
    }
    Ok(())
}

/// The first reload after an update reads the new text. One that belongs to the sidecar's start would come before the first update's.
async fn a_reload_finds_the_new_text(pod: &ScenarioPod) -> Verdict {
    const FINDS: &str = "a reload finds the new text";
    follows(pod, FINDS, "new text 1").await?;
    let (told, text) = (Told::of(pod)?, "new text 2");
    publish(pod, text).await?;
    let read = told
        .brings(FINDS, "that main is told", |read, _| Some(read.to_owned()))
        .await?;
    pod.sidecar()
        .expect(FINDS)
        .holds(read == text, format!("“{text}”"), format!("“{read}”"))
}

/// Two updates with a rest after the second, and then a third, before which nothing else may come.
async fn each_update_is_one_reload(pod: &ScenarioPod) -> Verdict {
    const REST: Duration = Duration::from_secs(5);
    let told = Told::of(pod)?;
    follows(pod, FOLLOWED, "once 1").await?;
    follows(pod, FOLLOWED, "once 2").await?;
    pod.main().arrange(agent::pause(REST)).await?;
    publish(pod, "once 3").await?;
    let mut seen = Vec::new();
    let until_last = |read: &str, _: &str| {
        seen.extend(read.starts_with("once").then(|| read.to_owned()));
        (read == "once 3").then_some(())
    };
    told.brings(FOLLOWED, "that main is told of “once 3”", until_last)
        .await?;
    let expected = ["once 1", "once 2", "once 3"];
    pod.sidecar().expect("one reload for each update").holds(
        seen == expected,
        format!("reloads with {expected:?}"),
        format!("reloads with {seen:?}"),
    )
}

/// Main has been told of the first, and then there are nine more before it could be told of each.
async fn quick_updates_end_in_the_last(pod: &ScenarioPod) -> Verdict {
    let told = Told::of(pod)?;
    follows(pod, FOLLOWED, "quick 1").await?;
    for number in 2..=10 {
        update(pod, &format!("quick {number}")).await?;
        pod.nudge().await?;
    }
    arrives(pod, &pod.main(), CONFIG, "quick 10").await?;
    told.loads("main has read the last one", "quick 10").await
}

/// Main answers 503 at first.
async fn a_refused_reload_is_repeated(pod: &ScenarioPod) -> Verdict {
    by_request(pod)?;
    let (main, told, text) = (pod.main(), Told::of(pod)?, "a text that main has no time for");
    main.arrange(agent::app_refuse()).await?;
    let refused = match publish(pod, text).await {
        Ok(()) => told.refuses(FOLLOWED, text).await,
        Err(error) => Err(error.into()),
    };
    // Whatever came of it, others look at the same main.
    main.arrange(agent::app_accept()).await?;
    refused?;
    told.loads("a refused reload is repeated", text).await
}

/// Main answers 422, or says nothing if it was not asked; a good text comes next.
async fn an_invalid_text_does_no_harm(pod: &ScenarioPod) -> Verdict {
    let (told, text) = (Told::of(pod)?, "an invalid text");
    publish(pod, text).await?;
    told.refuses(FOLLOWED, text).await?;
    follows(pod, FOLLOWED, "a good text").await
}

/// Main is there, but does not listen before a while after the update.
async fn a_late_main_is_told(pod: &ScenarioPod) -> Verdict {
    const LATE: Duration = Duration::from_secs(6);
    by_request(pod)?;
    let (main, text) = (pod.main(), "a text before main listens");
    let told = Told {
        within: patience::RECOVERY,
        ..Told::of(pod)?
    };
    publish(pod, text).await?;
    main.arrange(agent::pause(LATE)).await?;
    main.arrange(agent::app(CONFIG, RELOAD)).await?;
    told.loads("main is told once it listens", text).await
}

/// The ConfigMap has nothing in it for a while. Main reads its configuration as the first thing it does.
async fn main_begins_with_the_first_text(pod: &ScenarioPod) -> Verdict {
    const LATE: Duration = Duration::from_secs(8);
    const BEGINS: &str = "main begins with the first text";
    let (main, sidecar, text) = (pod.main(), pod.sidecar(), "the first text");
    let file = format!("{}/{NAME}", pod.profile()?.config_reload().mount.as_str());
    pod.until("a sidecar that runs", |state| runs(state, &sidecar)).await?;
    sidecar.arrange(agent::pause(LATE)).await?;
    update(pod, text).await?;
    arrives(pod, &sidecar, &file, text).await?;
    let (read, what) = (Told::of(pod)?.file, "what main reads when it begins");
    let read = read.as_deref().unwrap_or(CONFIG);
    let begins = |line: &Line| {
        let event = line.event.as_deref().filter(|event| event.text("by") == "start")?;
        (event.text("file") == read).then(|| event.clone())
    };
    let begun = main.expect(BEGINS).prints(what, begins).await?;
    let expected = format!("“{text}”");
    let expect = main.expect(BEGINS);
    expect.holds(begun.text("content") == text, expected, begun.to_string())
}

fn runs(state: &state::PodState, container: &Container) -> bool {
    let status = state::status(&state.pod, container.name());
    status.is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// The sidecar is restarted when another container has all the instances that the user may have.
async fn a_change_is_noticed_without_inotify(pod: &ScenarioPod) -> Verdict {
    const NOTICES: &str = "it notices an update without inotify, or ends";
    if !pod.profile()?.claims(Claim::ArbitraryUser) {
        let reason = "it takes a user that nobody else has, and the profile does not claim “arbitrary-user”";
        return Err(Finding::NotApplicable(reason.to_owned()));
    }
    if matches!(pod.profile()?.config_reload().reloads, Reloads::Signal { .. }) {
        let reason = "it tells main by a signal, for which main would have to be the same user, and main needs an inotify instance";
        return Err(Finding::NotApplicable(reason.to_owned()));
    }
    pod.ready().await?;
    pod.main().given().records("begun", |_| true).await?;
    let (sidecar, before) = (pod.sidecar(), pod.sidecar().run()?);
    pod.container("hog").arrange(agent::inotify_hog()).await?;
    sidecar.end_first_process(pod.profile()?.stop_signal()).await?;
    pod.until("the sidecar's next run", |_| has_begun_again(&sidecar, &before))
        .await?;
    let (told, text) = (Told::of(pod)?, "another text without inotify");
    // What is there when the sidecar looks first is no update to it.
    publish(pod, "a text without inotify").await?;
    publish(pod, text).await?;
    let main = pod.main();
    let expect = sidecar.expect(NOTICES);
    expect
        .eventually("that main is told, or an end with an error and a word,", async || {
            let lines = main.lines()?;
            let is_told = lines.iter().any(|line| told.read(line) == Some((text, "loaded")));
            let says = sidecar.lines()?.iter().any(|line| line.run > before.restarts);
            Ok(match ended_again(&sidecar, &before) {
                _ if is_told => Ok(()),
                Some(code) if code != 0 && says => Ok(()),
                Some(code) => Err(format!("it ended with code {code}; {}", sidecar.last_words())),
                None => Err(format!("it runs on, and main is not told; {}", sidecar.last_words())),
            })
        })
        .await
}

/// Whether a run after `before` has begun.
fn has_begun_again(sidecar: &Container, before: &Run) -> bool {
    let status = sidecar.status();
    status.is_some_and(|status| status.restart_count > before.restarts)
}

/// The code with which a run after `before` has ended, if one has.
fn ended_again(sidecar: &Container, before: &Run) -> Option<i32> {
    let status = sidecar.status()?;
    let ends = [status.state, status.last_state].into_iter().flatten();
    let mut ends = ends.filter_map(|state| state.terminated);
    let ended = ends.find(|ended| ended.container_id.as_ref() != Some(&before.container_id))?;
    Some(ended.exit_code)
}
