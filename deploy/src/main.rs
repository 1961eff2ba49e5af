//! keeladm: makes clusters: PKI, configuration, images, processes.

fn main() {}
