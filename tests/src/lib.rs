//! End-to-end tests and benchmarks that drive the real binaries from outside.
