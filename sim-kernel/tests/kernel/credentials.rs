//! Who may load: the peer's credentials decide. Only root can be somebody else for a moment.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lineinfo_core::Address;
use lineinfo_core::uapi::socket::{OPEN_READ, OPEN_WRITE};
use lineinfo_core::uapi::{Errno, Ioctl, Lookup};
use nix::unistd::Uid;
use zerocopy::IntoBytes;

use crate::support::{Client, Kernel, open_directory};

const NOBODY: u32 = 65534;
/// How often nobody tries to load.
const ATTEMPTS: usize = 100;
/// Names the socket to the child.
const SOCKET: &str = "SIM_KERNEL_TEST_SOCKET";

#[test]
fn others_may_look_and_not_load() {
    if !Uid::effective().is_root() {
        return;
    }
    let mut kernel = Kernel::boot(&[]);
    // The target directory may be closed to others.
    let directory = open_directory();
    let program = directory.path().join("as-nobody");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    let output = Command::new(&program)
        .args(["--exact", "credentials::as_nobody", "--ignored"])
        .env(SOCKET, kernel.socket())
        .current_dir(directory.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
    let line = kernel.wait_for("lineinfo: open refused");
    assert!(
        line.contains("user 65534") && line.ends_with("-EPERM"),
        "{line}"
    );
    // It tried often, and the log says so only now and then.
    kernel.output_of("meminfo");
    let lines = |what: &str| {
        let has = |line: &&String| line.contains(what);
        kernel.console.iter().filter(has).count()
    };
    let logged = lines("lineinfo: open refused");
    let suppressed = lines("refusals suppressed");
    assert!(logged <= 10 * (suppressed + 1), "{logged} lines");
    assert!(logged < ATTEMPTS / 2, "{logged} lines");
}

#[test]
#[ignore = "a part of the test above, run as another user"]
fn as_nobody() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let socket = Path::new(&socket);
    for flags in [OPEN_WRITE, OPEN_READ | OPEN_WRITE].repeat(ATTEMPTS / 2) {
        let mut client = Client::connect(socket);
        assert_eq!(client.open(flags), Err(Errno::EPERM.number()));
        assert_eq!(client.unload(), Err(Errno::EBADF.number()));
    }
    let mut client = Client::connect(socket);
    client.open(OPEN_READ).expect("anybody may read");
    assert_eq!(client.status().state, 0);
    // Whoever could ask for any address would find out where the kernel is.
    let question = Lookup::new(Address::Exact(0));
    assert_eq!(
        client.ioctl(Ioctl::Lookup, question.as_bytes()),
        Err(Errno::EPERM.number())
    );
    assert_eq!(client.unload(), Err(Errno::EBADF.number()));
    assert_eq!(client.write(b"x"), Err(Errno::EBADF.number()));
    // All that others can have are not all that there are.
    let mut others: Vec<Client> = Vec::new();
    let mut turned_away = 0;
    for _ in 0..64 {
        let mut client = Client::connect(socket);
        match client.open(OPEN_READ) {
            Ok(()) => others.push(client),
            Err(errno) => {
                assert_eq!(errno, Errno::EBUSY.number());
                turned_away += 1;
            }
        }
    }
    assert!(turned_away >= 16, "{turned_away}");
}
