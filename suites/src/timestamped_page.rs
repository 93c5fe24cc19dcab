//! A sidecar appends lines with the time to the page that nginx serves.

use rstest::rstest;
use sidecheck::Shape::{self, Classic, Native};
use sidecheck::{Container, Finding, Outcome, ScenarioPod, check, expect};

use crate::properties;

/// The next line that the writer tells of; it stands in the page by then.
async fn next_line(writer: &Container) -> Result<String, Finding> {
    let known = writer.printed().lines.len();
    let line = |printed: &sidecheck::pod::Printed| Some(printed.lines.get(known)?.text.clone());
    writer.prints("another line", line).await
}

/// nginx serves the page with a line that was written a moment ago.
async fn serves_new_lines(pod: &ScenarioPod) -> Result<(), Finding> {
    let line = next_line(&pod.sidecar()).await?;
    let page = pod.http(80).await?.get("/").await?.body;
    let last = page.lines().last().unwrap_or_default().to_owned();
    let expected = format!("a page with the line “{line}”");
    expect(
        &pod.main(),
        page.lines().any(|candidate| candidate == line),
        expected,
        format!("a page that ends with “{last}”"),
    )
}

/// Three times in a row, a line that the page did not have before is in the page once the writer has told of it.
#[rstest]
#[tokio::test]
async fn every_request_shows_new_lines(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/every-request-shows-new-lines", shape, async |pod| {
        let http = pod.http(80).await?;
        for _ in 0..3 {
            let before = http.get("/").await?.body;
            let writer = pod.sidecar();
            let line = writer.prints_line("a line that is not in the page", |line| !before.contains(line));
            let line = line.await?.text;
            let page = http.get("/").await?.body;
            expect(&pod.main(), page.contains(&line), format!("a page with “{line}”"), page)?;
        }
        Ok(())
    })
    .await
}

/// A client Pod asks for the page by the Service's name.
#[rstest]
#[tokio::test]
async fn reached_through_the_service(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/reached-through-the-service", shape, async |pod| {
        let client = pod.other("client").main();
        let line = next_line(&pod.sidecar()).await?;
        properties::service_leads_to(&client, "page", &line).await
    })
    .await
}

/// One network for nginx and the writer, another one for the next Pod.
#[rstest]
#[tokio::test]
async fn containers_share_one_ip(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/containers-share-one-ip", shape, async |pod| {
        properties::share_one_ip(pod, &pod.other("client")).await
    })
    .await
}

/// The page is served on localhost to the writer, on the Pod's IP to both, and on nobody else's localhost.
#[rstest]
#[tokio::test]
async fn localhost_reaches_nginx(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/localhost-reaches-nginx", shape, async |pod| {
        let (writer, client) = (pod.sidecar(), pod.other("client").main());
        let line = next_line(&writer).await?;
        properties::gets_line(&writer, "http://localhost/", &line).await?;
        properties::gets_line(&client, &format!("http://{}/", pod.ip()?), &line).await?;
        properties::is_refused(&client, "http://localhost/").await
    })
    .await
}

/// What stands under one path stands under the other, and what one side adds the other one reads at once.
#[rstest]
#[tokio::test]
async fn one_volume_under_two_paths(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/one-volume-under-two-paths", shape, async |pod| {
        let (nginx, writer) = (pod.main(), pod.sidecar());
        let (here, there) = ("/usr/share/nginx/html/index.html", "/var/log/index.html");
        writer
            .prints_line("that all is written", |line| line == "written")
            .await?;
        properties::same_bytes((&writer, there), (&nginx, here)).await?;
        properties::sees_at_once((&writer, there), (&nginx, here), "from the writer").await?;
        properties::sees_at_once((&nginx, here), (&writer, there), "from nginx").await?;
        properties::same_bytes((&nginx, here), (&writer, there)).await
    })
    .await
}

/// The writer gets another image; nginx goes on undisturbed and shows what the new writer writes.
#[rstest]
#[tokio::test]
async fn sidecar_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/sidecar-restarts-alone", shape, async |pod| {
        let (nginx, writer) = (pod.main(), pod.sidecar());
        let image = "localhost/sidecheck/python:v1";
        properties::has_begun(&writer).await?;
        properties::restarts_alone(&writer, &nginx, async || pod.set_image(&writer, image).await).await?;
        serves_new_lines(pod).await
    })
    .await
}

/// The liveness probe of nginx fails; the writer goes on undisturbed, and nginx serves its lines again.
#[rstest]
#[tokio::test]
async fn main_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("timestamped-page/main-restarts-alone", shape, async |pod| {
        let (nginx, writer) = (pod.main(), pod.sidecar());
        let fail = async || nginx.tell_to_end("write /tmp/unhealthy for the liveness probe").await;
        properties::has_begun(&writer).await?;
        properties::restarts_alone(&nginx, &writer, fail).await?;
        serves_new_lines(pod).await
    })
    .await
}

/// nginx logs SIGQUIT, the stop signal of its image, and the writer records SIGTERM, by the time the Pod is gone.
#[rstest]
#[tokio::test]
async fn stop_signals_reach_both_containers(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check(
        "timestamped-page/stop-signals-reach-both-containers",
        shape,
        async |pod| {
            properties::deleted(pod).await?;
            properties::nginx_was_told(&pod.main())?;
            properties::recorded(&pod.sidecar(), "sigterm").map(drop)
        },
    )
    .await
}

/// nginx has ended before the writer gets SIGTERM.
#[rstest]
#[tokio::test]
async fn sidecar_ends_after_main(#[values(Native)] shape: Shape) -> Outcome {
    check("timestamped-page/sidecar-ends-after-main", shape, async |pod| {
        properties::sidecar_is_ended_last(pod).await
    })
    .await
}
