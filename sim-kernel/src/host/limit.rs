//! How many open files, or connections, users of the host may have: each takes a thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lineinfo_core::device::RateLimit;
use nix::errno::Errno;

use crate::fs::cred::Credentials;
use crate::kernel::printk;
use crate::printk;

/// A limit for each user, and one for all.
#[derive(Debug)]
pub(super) struct Limit {
    /// Most that a user who may not load can have.
    each: usize,
    /// Most that all users who may not load can have.
    others: usize,
    /// Most that there can be; the difference is kept for users who may load.
    all: usize,
    /// How many each user has, and whether that user may load.
    users: Mutex<BTreeMap<u32, (usize, bool)>>,
}

/// One of those that there can be; dropping it makes room.
#[derive(Debug)]
pub(super) struct Permit {
    limit: &'static Limit,
    uid: u32,
}

impl Limit {
    pub(super) const fn new(each: usize, others: usize, all: usize) -> Self {
        Self {
            each,
            others,
            all,
            users: Mutex::new(BTreeMap::new()),
        }
    }

    /// One more for a user: `EMFILE` if the user has as many as one may, `EBUSY` if there are as many
    /// as there can be.
    pub(super) fn take(&'static self, credentials: Credentials) -> Result<Permit, Errno> {
        let uid = credentials.uid.as_raw();
        let may_load = credentials.privileged();
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, _) = users.get(&uid).copied().unwrap_or_default();
        let of = |may: &[bool]| -> usize {
            let counted = users
                .values()
                .filter(|(_, may_load)| may.contains(may_load));
            counted.map(|(count, _)| count).sum()
        };
        if !may_load && own >= self.each {
            return Err(Errno::EMFILE);
        }
        if of(&[true, false]) >= self.all || (!may_load && of(&[false]) >= self.others) {
            return Err(Errno::EBUSY);
        }
        users.insert(uid, (own + 1, may_load));
        Ok(Permit { limit: self, uid })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut users = self
            .limit
            .users
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((own, _)) = users.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

/// What is logged of those who are turned away, so that they do not flood the log.
#[derive(Debug, Default)]
pub(super) struct Complaints(RateLimit);

impl Complaints {
    pub(super) const fn new() -> Self {
        Self(RateLimit::new())
    }

    /// Whether another one may be logged now.
    pub(super) fn admit(&mut self) -> bool {
        let suppressed = self.0.admit(printk::uptime().as_millis() as u64);
        if let Some(suppressed @ 1..) = suppressed {
            printk!(
                Warning,
                "lineinfo: {suppressed} lines of who was turned away suppressed"
            );
        }
        suppressed.is_some()
    }

    /// Logs why there is not one more of `what` for a user, but only so often.
    pub(super) fn log(&mut self, credentials: Credentials, errno: Errno, what: &str) {
        if !self.admit() {
            return;
        }
        let Credentials { uid, host_pid } = credentials;
        let why = match errno {
            Errno::EMFILE => "the user has as many as one may have",
            _ => "all are in use",
        };
        printk!(
            Warning,
            "lineinfo: process {host_pid} of user {uid} turned away: of the {what} {why}: -{errno:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Uid;

    use super::*;

    #[test]
    fn a_user_has_a_limit_and_some_is_kept_for_who_may_load() {
        static LIMIT: Limit = Limit::new(2, 3, 5);
        let user = |uid| Credentials {
            uid: Uid::from_raw(uid),
            host_pid: 1,
        };
        let (first, second, root) = (user(4_000_000), user(4_000_001), user(0));
        let take = |who| LIMIT.take(who).map_err(|errno| errno as i32);
        let of_first = [take(first).unwrap(), take(first).unwrap()];
        assert_eq!(take(first).unwrap_err(), Errno::EMFILE as i32);
        let _of_second = take(second).unwrap();
        assert_eq!(take(second).unwrap_err(), Errno::EBUSY as i32);
        let of_root = [take(root).unwrap(), take(root).unwrap()];
        assert_eq!(take(root).unwrap_err(), Errno::EBUSY as i32);
        drop(of_first);
        let _again = [take(first).unwrap(), take(root).unwrap()];
        drop(of_root);
        assert_eq!(LIMIT.users.lock().unwrap().len(), 3);
    }
}
