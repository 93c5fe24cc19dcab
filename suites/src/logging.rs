//! A sidecar ships what main writes to a file.

use rstest::rstest;
use sidecheck::Shape::{self, Classic, Native};
use sidecheck::{Outcome, check};

use crate::properties;

/// What main appends to the log, the shipper prints; the marker is written after the last line.
#[rstest]
#[tokio::test]
async fn every_line_reaches_the_sidecar(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/every-line-reaches-the-sidecar", shape, async |pod| {
        pod.sidecar().prints_numbered_lines(200, "end").await
    })
    .await
}

/// One network for all containers of the Pod, another one for the next Pod.
#[rstest]
#[tokio::test]
async fn containers_share_one_ip(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/containers-share-one-ip", shape, async |pod| {
        properties::share_one_ip(pod, &pod.other("other")).await
    })
    .await
}

/// The shipper is ended; main goes on undisturbed, and the shipper ships again.
#[rstest]
#[tokio::test]
async fn sidecar_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/sidecar-restarts-alone", shape, async |pod| {
        properties::restarts_alone(&pod.sidecar(), &pod.main(), async || pod.sidecar().signal("TERM").await).await?;
        pod.main()
            .tell("append-text /var/log/app.log after the restart")
            .await?;
        pod.sidecar()
            .prints_line("the line “after the restart”", |line| line == "after the restart")
            .await?;
        Ok(())
    })
    .await
}
