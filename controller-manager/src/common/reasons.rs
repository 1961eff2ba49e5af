//! Reasons that users and other programs look for.

/// A pod could not be created.
pub const FAILED_CREATE: &str = "FailedCreate";
/// A pod could not be deleted.
pub const FAILED_DELETE: &str = "FailedDelete";
/// A pod was created.
pub const SUCCESSFUL_CREATE: &str = "SuccessfulCreate";
/// A pod was deleted.
pub const SUCCESSFUL_DELETE: &str = "SuccessfulDelete";
