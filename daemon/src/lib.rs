//! What every daemon starts with: configuration, logging, TLS, health, metrics, signals.
