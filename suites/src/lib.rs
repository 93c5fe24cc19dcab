//! The checks: one module an area, one function a check. What a check demands stands in the fixture of the same name.
#![cfg(test)]

mod catalogue;
mod config_reload;
mod logging;
mod monitoring;
mod properties;
mod reverse_proxy;
mod timestamped_page;
