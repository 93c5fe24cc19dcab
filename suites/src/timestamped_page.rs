//! A sidecar appends lines with the time to the page that nginx serves.

use sidecheck::agent;
use sidecheck::pod::Line;
use sidecheck::{Container, ScenarioPod, Verdict};

use crate::properties::{WORKS, restarts_alone, sees_at_once, service_leads_to};

crate::checks! {
    "timestamped-page"
    shared { every_request_shows_new_lines, reached_through_the_service, one_volume_under_two_paths }
    last { a_new_image_restarts_the_sidecar_alone }
    own {
        liveness_failure_restarts_nginx_alone [Classic, Native],
    }
}

/// A line of the page as the writer prints it, not one of its events.
fn written(line: &Line) -> Option<String> {
    (line.event.is_none() && !line.text.is_empty()).then(|| line.text.to_string())
}

/// The next line that the writer prints; it stands in the page by then.
async fn next_line(writer: &Container) -> anyhow::Result<String> {
    writer
        .given()
        .after(writer.line_count()?)
        .prints("another line", written)
        .await
}

/// nginx serves the page with a line that was written a moment ago.
async fn works(pod: &ScenarioPod) -> Verdict {
    let line = next_line(&pod.sidecar()).await?;
    let (nginx, what) = (pod.main(), format!("a page with the line “{line}”"));
    let expect = nginx.expect(WORKS);
    expect
        .answers_at_once(&pod.http(80).await?, "/", &what, |answer| answer.has_line(&line))
        .await?;
    Ok(())
}

async fn end_main(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.main().end_program("nginx", "KILL").await
}

async fn end_sidecar(pod: &ScenarioPod) -> anyhow::Result<()> {
    pod.sidecar().end_program("write-page", "TERM").await
}

/// Three times in a row, the page has every line that the writer has printed since the request before.
async fn every_request_shows_new_lines(pod: &ScenarioPod) -> Verdict {
    let (nginx, writer, http) = (pod.main(), pod.sidecar(), pod.http(80).await?);
    let mut known = writer.line_count()?;
    for _ in 0..3 {
        let mut lines = Vec::new();
        let three = |line: &Line| {
            lines.extend(written(line));
            (lines.len() == 3).then_some(())
        };
        writer.given().after(known).prints("three lines more", three).await?;
        known += lines.len();
        let what = format!("a page with the lines {lines:?}");
        let all = nginx.expect("the page has every line");
        all.answers_at_once(&http, "/", &what, |answer| {
            lines.iter().all(|line| answer.has_line(line))
        })
        .await?;
    }
    Ok(())
}

/// A client Pod asks for the page by the Service's name.
async fn reached_through_the_service(pod: &ScenarioPod) -> Verdict {
    let line = next_line(&pod.sidecar()).await?;
    service_leads_to(
        &pod.other("client").main(),
        "the Service leads to the page",
        "page",
        &line,
    )
    .await
}

/// What one side adds under its path the other one reads at once under its own.
async fn one_volume_under_two_paths(pod: &ScenarioPod) -> Verdict {
    let (nginx, writer) = (pod.main(), pod.sidecar());
    let (here, there) = ("/usr/share/nginx/html/other.html", "/var/log/other.html");
    sees_at_once((&writer, there), (&nginx, here), "from the writer").await?;
    sees_at_once((&nginx, here), (&writer, there), "from nginx").await
}

/// The liveness probe of nginx fails; the writer runs on undisturbed, and nginx serves its lines again.
async fn liveness_failure_restarts_nginx_alone(pod: &ScenarioPod) -> Verdict {
    let (nginx, writer) = (pod.main(), pod.sidecar());
    let fail = agent::write("/tmp/unhealthy", "for the liveness probe");
    restarts_alone(&nginx, &writer, async || Ok(nginx.arrange(fail).await.map(drop)?)).await?;
    works(pod).await
}

/// The writer gets another image; nginx runs on undisturbed and shows what the new writer writes.
async fn a_new_image_restarts_the_sidecar_alone(pod: &ScenarioPod) -> Verdict {
    let (nginx, writer) = (pod.main(), pod.sidecar());
    let image = "localhost/sidecheck/python:v1";
    restarts_alone(&writer, &nginx, async || Ok(pod.set_image(&writer, image).await?)).await?;
    works(pod).await
}
