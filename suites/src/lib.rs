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
mod validate;

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
        crate::tests! {
            $area
            shared {
                $($shared => super::$shared;)*
                containers_share_one_ip => crate::properties::containers_share_one_ip;
                localhost_works_both_ways => crate::properties::localhost_works_both_ways;
                one_volume_is_seen_by_both => crate::properties::one_volume_is_seen_by_both;
                // Each of these ends another container.
                main_restarts_alone => async |pod: &ScenarioPod| {
                    crate::properties::restarts_alone(&pod.main(), &pod.sidecar(), async || Ok(super::end_main(pod).await?)).await?;
                    super::works(pod).await
                };
                sidecar_restarts_alone => async |pod: &ScenarioPod| {
                    crate::properties::restarts_alone(&pod.sidecar(), &pod.main(), async || Ok(super::end_sidecar(pod).await?)).await?;
                    super::works(pod).await
                };
                $($last => super::$last;)*
                // These two end the Pod.
                stop_signals_reach_every_container => crate::properties::stop_signals_reach_every_container;
                sidecar_ends_after_main => crate::properties::sidecar_ends_after_main;
            }
            own { $($own [$($shape),+] => super::$own;)* }
        }
    };
}
use checks;

/// Makes tests of a role's functions, like [`checks!`], together with the properties of every role.
///
/// The role has one function for the properties: `works` asserts that the sidecar does for main what it is there for.
macro_rules! role {
    (
        $area:literal
        shared { $($shared:ident),* $(,)? }
        last { $($last:ident),* $(,)? }
        own { $($own:ident [$($shape:ident),+]),* $(,)? }
    ) => {
        crate::tests! {
            $area
            shared {
                becomes_ready => crate::validate::properties::becomes_ready;
                works_as_soon_as_it_is_ready => super::works;
                $($shared => super::$shared;)*
                leaves_no_zombies => async |pod: &ScenarioPod| {
                    // By itself too, it has something to do.
                    for _ in 0..crate::validate::properties::ROUNDS {
                        super::works(pod).await?;
                    }
                    crate::validate::properties::leaves_no_zombies(pod).await
                };
                survives_mains_restart => async |pod: &ScenarioPod| {
                    crate::validate::properties::survives_mains_restart(pod).await?;
                    super::works(pod).await
                };
                restarts_alone_and_resumes => async |pod: &ScenarioPod| {
                    crate::validate::properties::restarts_alone(pod).await?;
                    super::works(pod).await
                };
                $($last => super::$last;)*
                stops_in_time => crate::validate::properties::stops_in_time;
            }
            own {
                works_beside_services [Classic, Native] => super::works;
                lets_a_job_complete [Native] => crate::validate::properties::lets_a_job_complete;
                $($own [$($shape),+] => super::$own;)*
            }
        }
    };
}
use role;

/// Makes the tests themselves: each of the `shared` names with its body on one Pod, each of the `own` ones on a Pod for each of its shapes.
macro_rules! tests {
    (
        $area:literal
        shared { $($shared:ident => $look:expr;)* }
        own { $($own:ident [$($shape:ident),+] => $body:expr;)* }
    ) => {
        pub mod check {
            use rstest::rstest;
            #[allow(unused_imports, reason = "not every area has checks with a Pod of their own")]
            use sidecheck::scenario::{Body, Check, check, share};
            use sidecheck::Shape::{self, Classic, Native};
            use sidecheck::{Outcome, ScenarioPod};

            const fn one(function: &'static str, body: Body) -> Check {
                Check {
                    area: $area,
                    function,
                    body,
                }
            }

            /// The checks that share a Pod.
            pub const SHARED: &[Check] = &[$(one(stringify!($shared), |pod| Box::pin(($look)(pod)))),*];

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
                    check(one(stringify!($own), |pod| Box::pin(($body)(pod))), shape).await
                }
            )*
        }
    };
}
use tests;

/// Makes tests of functions that look at an image alone, in a module `check`: each is one check.
macro_rules! contract {
    ($area:literal $($function:ident),+ $(,)?) => {
        pub mod check {
            use rstest::rstest;
            use sidecheck::scenario::{LoneCheck, alone};
            use sidecheck::Shape::{self, Alone};
            use sidecheck::Outcome;

            /// The checks and their shapes.
            pub const OWN: &[(&str, &[Shape])] = &[$((stringify!($function), &[Alone])),+];

            $(
                #[rstest]
                #[tokio::test]
                async fn $function(#[values(Alone)] shape: Shape) -> Outcome {
                    // The only one: it is there for the test's name.
                    let _ = shape;
                    alone(LoneCheck {
                        area: $area,
                        function: stringify!($function),
                        body: |lone| Box::pin(super::$function(lone)),
                    })
                    .await
                }
            )+
        }
    };
}
use contract;
