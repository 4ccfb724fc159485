//! What the process takes from the system around it: its data directory, fds, signals and service manager.

pub(crate) mod data_dir;
pub(crate) mod fd_budget;
pub(crate) mod signals;
pub(crate) mod systemd;
