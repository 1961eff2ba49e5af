//! What the kernel should do, computed without touching it.

pub mod build;
pub mod render;
pub mod services;
pub mod table;

pub use build::{Options, build};
pub use render::{difference, whole};
pub use services::{Endpoint, ServicePort, service_ports};
pub use table::{Chain, Family, Set, Table};

#[cfg(test)]
mod build_tests;
