//! Credentials: on whose behalf a system call is made.

use nix::unistd::Uid;

/// The user and the process of the host that a task acts for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials {
    /// User of the host.
    pub(crate) uid: Uid,
    /// Process of the host, 0 for the kernel's own tasks.
    pub(crate) host_pid: i32,
}

impl Credentials {
    /// The credentials of init.
    pub(crate) fn kernel() -> Self {
        Self {
            uid: Uid::effective(),
            host_pid: 0,
        }
    }

    /// Whether the user is root or the user that runs this kernel, who may do what root may.
    pub(crate) fn privileged(self) -> bool {
        self.uid.is_root() || self.uid == Uid::effective()
    }
}
