//! The commands, each a list of steps.

pub(crate) mod down;
pub(crate) mod images;
pub(crate) mod status;
pub(crate) mod up;
