//! The checks: one module an area, one function a check. What a check requires is in the fixture of the same name.
//!
//! A function takes the fixture's Pod and decides. [`checks!`] makes tests of an area's functions, together with the
//! [properties](properties) that hold in every area.
#![cfg(test)]

mod catalogue;
mod config_reload;
mod logging;
mod monitoring;
mod properties;
mod reverse_proxy;
mod timestamped_page;

/// Makes tests of an area's functions, in a module `check`.
///
/// `shared` functions look at one Pod of the scenario, one after another, and change nothing that a later one looks at; then come the
/// properties that every area shares, with the restarts; then the `last` functions, which may change the Pod or end it. Each `own`
/// function, with its shapes, has a Pod of its own.
///
/// The area has three functions for the properties: `works` asserts that main and sidecar do together what they are there for;
/// `end_main` and `end_sidecar` end a container from within.
macro_rules! checks {
    (
        $area:literal
        shared { $($shared:ident),* $(,)? }
        last { $($last:ident),* $(,)? }
        own { $($own:ident [$($shape:ident),+]),* $(,)? }
    ) => {
        pub mod check {
            use rstest::rstest;
            use sidecheck::Outcome;
            use sidecheck::Shape::{self, Classic, Native};
            use sidecheck::scenario::{Check, check, share};

            use crate::properties;

            const fn one(function: &'static str, body: sidecheck::scenario::Body) -> Check {
                Check {
                    area: $area,
                    function,
                    body,
                }
            }

            /// The checks that share a Pod.
            pub const SHARED: &[Check] = &[
                $(one(stringify!($shared), |pod| Box::pin(super::$shared(pod))),)*
                one("containers_share_one_ip", |pod| Box::pin(properties::containers_share_one_ip(pod))),
                one("localhost_works_both_ways", |pod| Box::pin(properties::localhost_works_both_ways(pod))),
                one("one_volume_is_seen_by_both", |pod| Box::pin(properties::one_volume_is_seen_by_both(pod))),
                // Each of these ends another container.
                one("main_restarts_alone", |pod| {
                    Box::pin(async move {
                        properties::restarts_alone(&pod.main(), &pod.sidecar(), async || Ok(super::end_main(pod).await?)).await?;
                        super::works(pod).await
                    })
                }),
                one("sidecar_restarts_alone", |pod| {
                    Box::pin(async move {
                        properties::restarts_alone(&pod.sidecar(), &pod.main(), async || Ok(super::end_sidecar(pod).await?)).await?;
                        super::works(pod).await
                    })
                }),
                $(one(stringify!($last), |pod| Box::pin(super::$last(pod))),)*
                // These two end the Pod.
                one("stop_signals_reach_every_container", |pod| {
                    Box::pin(properties::stop_signals_reach_every_container(pod))
                }),
                one("sidecar_ends_after_main", |pod| Box::pin(properties::sidecar_ends_after_main(pod))),
            ];

            /// The checks that have a Pod of their own, and their shapes.
            pub const OWN: &[(&str, &[Shape])] = &[$((stringify!($own), &[$($shape),+])),*];

            #[rstest]
            #[tokio::test]
            async fn shared(#[values(Classic, Native)] shape: Shape) -> Outcome {
                share(SHARED, shape).await
            }

            $(
                #[rstest]
                #[tokio::test]
                async fn $own(#[values($($shape),+)] shape: Shape) -> Outcome {
                    check(one(stringify!($own), |pod| Box::pin(super::$own(pod))), shape).await
                }
            )*
        }
    };
}
use checks;
