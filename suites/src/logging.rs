//! A sidecar ships what main writes to a file.

use rstest::rstest;
use sidecheck::Shape::{self, Classic, Native};
use sidecheck::{Outcome, check, expect};

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
        let (main, shipper) = (pod.main(), pod.sidecar());
        properties::restarts_alone(&shipper, &main, async || shipper.terminate().await).await?;
        main.tell("append-text /var/log/app.log after the restart").await?;
        shipper
            .prints_line("the line “after the restart”", |line| line == "after the restart")
            .await?;
        Ok(())
    })
    .await
}

/// Five requests, then an error that is logged after them: five lines have arrived by then.
#[rstest]
#[tokio::test]
async fn nginx_requests_are_shipped(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/nginx-requests-are-shipped", shape, async |pod| {
        let http = pod.http(80).await?;
        for number in 1..=5 {
            http.get(&format!("/?request={number}")).await?;
        }
        http.get("/the-end").await?;
        properties::ships_in_order(
            &pod.sidecar(),
            "GET /?request=",
            5,
            "open() \"/usr/share/nginx/html/the-end\"",
        )
        .await
    })
    .await
}

/// Five errors, then a request that is logged after them: five lines have arrived by then.
#[rstest]
#[tokio::test]
async fn nginx_errors_are_shipped(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/nginx-errors-are-shipped", shape, async |pod| {
        let http = pod.http(80).await?;
        for number in 1..=5 {
            http.get(&format!("/missing-{number}")).await?;
        }
        http.get("/?the-end").await?;
        properties::ships_in_order(
            &pod.sidecar(),
            "open() \"/usr/share/nginx/html/missing-",
            5,
            "GET /?the-end",
        )
        .await
    })
    .await
}

/// The shipper complains that there is no file; then main makes it.
#[rstest]
#[tokio::test]
async fn a_file_that_appears_late_is_shipped(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/a-file-that-appears-late-is-shipped", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        shipper
            .prints_line("a complaint", |line| line.contains("can't open"))
            .await?;
        main.tell("append /var/log/app.log 20").await?;
        main.tell("append-text /var/log/marker end").await?;
        shipper.prints_numbered_lines(20, "end").await
    })
    .await
}

/// Ten lines are read, the file is renamed, ten more go to a new file of the old name.
#[rstest]
#[tokio::test]
async fn rotation_by_rename_is_followed(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/rotation-by-rename-is-followed", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        main.tell("append /var/log/app.log 10").await?;
        shipper.prints_line("line 10", |line| line == "line 10").await?;
        main.tell("rename /var/log/app.log /var/log/app.log.1").await?;
        main.tell("append /var/log/app.log 10").await?;
        main.tell("append-text /var/log/marker end").await?;
        shipper.prints_numbered_lines(20, "end").await
    })
    .await
}

/// Ten lines are read, the file is emptied, five more are written to it.
#[rstest]
#[tokio::test]
async fn truncation_is_followed(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/truncation-is-followed", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        main.tell("append /var/log/app.log 10").await?;
        shipper.prints_line("line 10", |line| line == "line 10").await?;
        main.tell("truncate /var/log/app.log").await?;
        main.tell("append /var/log/app.log 5").await?;
        main.tell("append-text /var/log/marker end").await?;
        shipper.prints_numbered_lines(15, "end").await
    })
    .await
}

/// What stands under one path stands under the other, and what one side adds the other one reads at once.
#[rstest]
#[tokio::test]
async fn one_volume_under_two_paths(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/one-volume-under-two-paths", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        let (here, there) = ("/var/log/app/orders.log", "/mnt/logs/orders.log");
        properties::same_bytes((&main, here), (&shipper, there)).await?;
        properties::sees_at_once((&main, here), (&shipper, there), "from main").await?;
        properties::sees_at_once((&shipper, there), (&main, here), "from the shipper").await?;
        properties::same_bytes((&main, here), (&shipper, there)).await
    })
    .await
}

/// Each container reaches the other one on localhost, by every name and address it has; another Pod reaches neither.
#[rstest]
#[tokio::test]
async fn localhost_works_both_ways(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/localhost-works-both-ways", shape, async |pod| {
        let (main, shipper, client) = (pod.main(), pod.sidecar(), pod.other("client").main());
        for (server, port, asker) in [(&main, 8080, &shipper), (&shipper, 8081, &main)] {
            let role = if port == 8080 { "main" } else { "sidecar" };
            for address in properties::loopback_addresses(server, port, role).await? {
                properties::gets(asker, &address, role).await?;
                properties::is_refused(&client, &address).await?;
            }
        }
        Ok(())
    })
    .await
}

/// The shipper fails to write with “read-only file system”, and reads what main wrote.
#[rstest]
#[tokio::test]
async fn read_only_mount_is_enforced(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/read-only-mount-is-enforced", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        properties::is_read_only(&shipper, "append-text /var/log/app.log from the shipper").await?;
        properties::sees_at_once((&main, "/var/log/app.log"), (&shipper, "/var/log/app.log"), "from main").await
    })
    .await
}

/// Main writes, ends and starts again: both containers still find what it wrote.
#[rstest]
#[tokio::test]
async fn shared_files_survive_a_restart(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/shared-files-survive-a-restart", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        main.tell("append-text /var/log/app.log before the restart").await?;
        properties::restarts_alone(&main, &shipper, async || main.terminate().await).await?;
        for container in [&main, &shipper] {
            let found = properties::content(container, "/var/log/app.log").await?;
            expect(
                container,
                found == "before the restart\n",
                "what was written before the restart",
                found,
            )?;
        }
        Ok(())
    })
    .await
}

/// Main writes, and the shipper has it; the Pod ends, and its successor finds nothing of it.
#[rstest]
#[tokio::test]
async fn shared_files_end_with_the_pod(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/shared-files-end-with-the-pod", shape, async |pod| {
        let line = "from the first Pod";
        pod.main().tell(&format!("append-text /var/log/app.log {line}")).await?;
        pod.sidecar()
            .prints_line("main's line", |printed| printed == line)
            .await?;
        pod.deleted().await?;
        let successor = pod.successor().await?;
        for container in [successor.main(), successor.sidecar()] {
            let found = properties::content(&container, "/var/log/app.log").await?;
            let nothing = found.starts_with("ENOENT");
            expect(&container, nothing, "no file of the Pod before: ENOENT", found)?;
        }
        Ok(())
    })
    .await
}

/// Main ends with an error; the shipper goes on undisturbed and ships the lines of main's second run.
#[rstest]
#[tokio::test]
async fn main_restarts_alone(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/main-restarts-alone", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        properties::restarts_alone(&main, &shipper, async || main.terminate().await).await?;
        main.tell("append-text /var/log/app.log from the second run").await?;
        shipper
            .prints_line("the line of the second run", |line| line == "from the second run")
            .await?;
        Ok(())
    })
    .await
}

/// The sidecar takes more memory than it may; it alone is killed, and the status says why.
#[rstest]
#[tokio::test]
async fn oom_kill_stays_with_the_sidecar(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/oom-kill-stays-with-the-sidecar", shape, async |pod| {
        let (main, shipper) = (pod.main(), pod.sidecar());
        properties::restarts_alone(&shipper, &main, async || properties::eats(&shipper, "200Mi").await).await?;
        properties::ended(&shipper, "OOMKilled", 137)
    })
    .await
}

/// What main writes in its SIGTERM handler is in the shipper's log when the Pod is gone.
#[rstest]
#[tokio::test]
async fn last_lines_survive_shutdown(#[values(Native)] shape: Shape) -> Outcome {
    check("logging/last-lines-survive-shutdown", shape, async |pod| {
        properties::deleted(pod).await?;
        pod.sidecar().prints_numbered_lines(5, "end").await
    })
    .await
}

/// Both are asked to end at once; a shipper that waits for main's last line has it when the Pod is gone.
#[rstest]
#[tokio::test]
async fn a_classic_shipper_waits_for_the_last_line(#[values(Classic)] shape: Shape) -> Outcome {
    check(
        "logging/a-classic-shipper-waits-for-the-last-line",
        shape,
        async |pod| {
            properties::deleted(pod).await?;
            pod.sidecar().prints_numbered_lines(5, "end").await
        },
    )
    .await
}

/// Every container has recorded SIGTERM by the time the Pod is gone.
#[rstest]
#[tokio::test]
async fn sigterm_reaches_every_container(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/sigterm-reaches-every-container", shape, async |pod| {
        properties::deleted(pod).await?;
        for container in [pod.main(), pod.sidecar()] {
            properties::recorded(&container, "sigterm")?;
        }
        Ok(())
    })
    .await
}

/// Main's exit comes before the sidecar's SIGTERM.
#[rstest]
#[tokio::test]
async fn sidecar_ends_after_main(#[values(Native)] shape: Shape) -> Outcome {
    check("logging/sidecar-ends-after-main", shape, async |pod| {
        properties::deleted(pod).await?;
        properties::comes_before((&pod.main(), "exit"), (&pod.sidecar(), "sigterm"))
    })
    .await
}

/// Main ignores SIGTERM and is killed; the sidecar's handler finishes all the same.
#[rstest]
#[tokio::test]
async fn grace_expiry_kills(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/grace-expiry-kills", shape, async |pod| {
        properties::deleted(pod).await?;
        properties::recorded(&pod.main(), "sigterm")?;
        properties::ended(&pod.main(), "Error", 137)?;
        properties::comes_before((&pod.sidecar(), "sigterm"), (&pod.sidecar(), "exit"))?;
        properties::ended(&pod.sidecar(), "Completed", 0)
    })
    .await
}

/// Each container's hook was answered before the container got SIGTERM.
#[rstest]
#[tokio::test]
async fn prestop_runs_before_sigterm(#[values(Classic, Native)] shape: Shape) -> Outcome {
    check("logging/prestop-runs-before-sigterm", shape, async |pod| {
        properties::deleted(pod).await?;
        for container in [pod.main(), pod.sidecar()] {
            properties::comes_before((&container, "request"), (&container, "sigterm"))?;
        }
        Ok(())
    })
    .await
}
