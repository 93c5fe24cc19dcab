//! Roles: what makes an image a good sidecar. The sidecar is the one of a profile; without one, the role's reference image.

pub mod config_reload;
pub mod contract;
pub mod generic;
pub mod logging;
pub mod properties;
pub mod reverse_proxy;
