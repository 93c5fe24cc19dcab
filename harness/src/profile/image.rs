//! What an image says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The label with the role.
pub const ROLE_LABEL: &str = "dev.sidecheck.role";

/// The label with the claims, separated by commas.
pub const CLAIMS_LABEL: &str = "dev.sidecheck.claims";

/// What an image's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefaults {
    /// USER: a name or a number, with or without a group.
    pub user: Option<String>,
    /// The TCP ports of EXPOSE.
    pub exposed: Vec<u16>,
    /// STOPSIGNAL: a name or a number.
    pub stop_signal: Option<String>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// Whether there is a HEALTHCHECK.
    pub has_healthcheck: bool,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// The last part of an image's name, as a Service can be called: `nginx` of `docker.io/library/nginx:1.29@sha256:…`, and of `/tmp/nginx.tar`.
pub fn short_name(image: &str) -> String {
    /// The longest name that a Service can have.
    const LONGEST: usize = 63;
    let name = image.split('@').next().unwrap_or_default();
    let name = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = name.split([':', '.']).next().unwrap_or_default().to_lowercase();
    let letters = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    let name: String = letters
        .skip_while(|letter| !letter.is_ascii_lowercase())
        .take(LONGEST)
        .collect();
    match name.trim_end_matches('-') {
        // An id is no name.
        "" | "sha256" => "image".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::short_name;

    #[rstest]
    #[case("docker.io/library/nginx:1.29@sha256:0123", "nginx")]
    #[case("localhost/sidecheck/specimen:v1", "specimen")]
    #[case("registry:5000/My_Shipper", "my-shipper")]
    #[case("/tmp/1.tar", "image")]
    #[case("sha256:0123", "image")]
    #[case("./out/shipper.oci.tar", "shipper")]
    fn a_short_name_can_be_a_service(#[case] image: &str, #[case] name: &str) {
        assert_eq!(short_name(image), name);
    }
}
