//! Containers' logs.
//!
//! - [`cri_format`]: the lines the runtime writes
//! - [`reader`]: `kubectl logs`
//! - [`rotate`]: no log grows without end

pub mod cri_format;
pub mod reader;
pub mod rotate;
