//! What is asked of every sidecar: it runs beside main and gets in nobody's way.

use sidecheck::pod::state::is_ready;
use sidecheck::{ScenarioPod, Verdict};

use crate::properties::WORKS;

crate::role! {
    "validate/generic"
    shared {}
    last {}
    own {}
}

/// Nobody knows what it is for: it runs and says that it is ready.
async fn works(pod: &ScenarioPod) -> Verdict {
    let sidecar = pod.sidecar();
    let expect = sidecar.expect(WORKS);
    expect
        .eventually("a Pod that is ready", async || {
            let state = pod.state();
            let ready = state.as_ref().is_some_and(|state| is_ready(&state.pod));
            Ok(if ready { Ok(()) } else { Err(pod.describe()) })
        })
        .await?;
    Ok(())
}
