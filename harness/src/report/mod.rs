//! One run model, many renderings.

pub mod assemble;
pub mod github;
pub mod junit;
pub mod model;
pub mod records;
pub mod terminal;
pub mod verdict;
