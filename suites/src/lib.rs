//! The checks: one module an area, one function a check. What a check demands stands in the fixture of the same name.
#![cfg(test)]

mod config_reload;
mod logging;
mod properties;
